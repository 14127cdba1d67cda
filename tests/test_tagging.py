import pytest
from hypothesis import given, strategies
from samples import UNICODE

from ulmfit_style.tasks.entities import Entity, Unit, iob2, of_tags, tagged, units, words
from ulmfit_style.tasks.windows import trimmed

# One sentence in every scheme: a person of two words, another right after, a place of three, and a place of one.
SCHEMES = {
    "IOB2": "B-p I-p B-p O B-l I-l I-l B-l",
    "IOB1": "I-p I-p B-p O I-l I-l I-l B-l",
    "IOBES": "B-p E-p S-p O B-l I-l E-l S-l",
    "BILOU": "B-p L-p U-p O B-l I-l L-l U-l",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_marks_the_same_entities(scheme: str):
    tags = SCHEMES[scheme].split()
    assert of_tags(tags) == [Entity("p", 0, 2), Entity("p", 2, 3), Entity("l", 4, 7), Entity("l", 7, 8)]
    assert iob2(tags) == SCHEMES["IOB2"].split()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-p I-p O", "B-p I-p O"),
        ("B-p I-l I-l", "B-p B-l I-l"),
        ("S-p I-p E-p", "B-p B-p I-p"),
        ("B-a-b I-a-b", "B-a-b I-a-b"),  # a type may hold a hyphen
    ],
)
def test_broken_tags_are_read_as_conlleval_does(tags: str, expected: str):
    assert iob2(tags.split()) == expected.split()


def cut(text: str, ranges: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in ranges]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada's U.S. 3.5%", "Ada|'|s|U|.|S|.|3|.|5|%"),
        ("서울에서 만나요.", "서울에서|만나요|."),
        ("カタカナ go", "カ|タ|カ|ナ|go"),
        ("हिन्दी में", "हिन्दी|में"),  # vowel signs are marks, and no letters
        ("cafe\u0301 a_b", "cafe\u0301|a|_|b"),
        ("😀 ok", "😀|ok"),
    ],
)
def test_words_of_many_languages(text: str, expected: str):
    assert cut(text, words(text)) == [word for word in expected.split("|") if word]


def test_a_piece_has_the_tag_of_the_entity_that_it_is_a_part_of():
    spans = [Entity("a", 2, 6), Entity("b", 6, 8), Entity("a", 20, 30)]
    pieces = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 19), (19, 22), (22, 40)]
    assert tagged(pieces, spans) == ["O", "B-a", "I-a", "B-b", "O", "B-a", "I-a"]


def test_tokens_and_words_are_divided_so_that_each_token_is_in_one_part():
    text = "a (bc).  d"
    pieces = words(text)
    assert cut(text, pieces) == ["a", "(", "bc", ")", ".", "d"]
    tokens = [(0, 1), (2, 4), (4, 5), (5, 7), (7, 7), (9, 10)]  # a | (b | c | ). | | d
    assert units(pieces, tokens) == [Unit(0, 0, 0), Unit(1, 2, 1), Unit(3, 4, 3), Unit(5, 5, 5)]
    assert units([(0, 1), (2, 3), (4, 5)], [(0, 1), (4, 5)]) == [Unit(0, 0, 0), Unit(2, 2, 1)]  # one without tokens


def test_blanks_at_the_ends_are_no_part_of_a_piece():
    text = "a  b\tc "
    assert trimmed(text, (1, 4)) == (3, 4)
    assert trimmed(text, (3, 7)) == (3, 6)
    start, end = trimmed(text, (1, 3))
    assert start == end


@given(text=UNICODE, data=strategies.data())
def test_entities_become_tags_and_tags_the_same_entities_in_any_unicode(text: str, data: strategies.DataObject):
    pieces = words(text)
    assert all(start < end and text[start:end].strip() for start, end in pieces)
    assert [end for _, end in pieces[:-1]] <= [start for start, _ in pieces[1:]]
    borders = sorted(data.draw(strategies.sets(strategies.integers(0, len(pieces)), max_size=8)))
    ranges = list(zip(borders[::2], borders[1::2], strict=False))
    types = [data.draw(strategies.sampled_from("ab")) for _ in ranges]
    spans = [Entity(t, pieces[first][0], pieces[last - 1][1]) for t, (first, last) in zip(types, ranges, strict=True)]
    found = [Entity(entity.type, *entity_range(pieces, entity)) for entity in of_tags(tagged(pieces, spans))]
    assert found == spans


def entity_range(pieces: list[tuple[int, int]], entity: Entity) -> tuple[int, int]:
    return pieces[entity.start][0], pieces[entity.end - 1][1]


RANGES = strategies.lists(strategies.integers(0, 40), max_size=30, unique=True).map(
    lambda places: list(zip(sorted(places)[::2], sorted(places)[1::2], strict=False))
)


@given(pieces=RANGES, tokens=RANGES)
def test_each_token_that_touches_a_word_is_in_one_part_with_all_words_that_it_touches(pieces, tokens):
    parts = units(pieces, tokens)
    assert [part.last for part in parts[:-1]] < [part.first for part in parts[1:]] or len(parts) < 2
    for start, end in tokens:
        touched = {n for n, (first, last) in enumerate(pieces) if first < end and start < last}
        holders = [part for part in parts if touched & set(range(part.first, part.last + 1))]
        assert len(holders) == bool(touched)
        assert all(touched <= set(range(part.first, part.last + 1)) for part in holders)
