"""What many labelled rows take: `python bench/labelled_rows.py ROWS` plans the training on so many.

The rows are made up, of 15 words on average and 10 classes, in a csv file. Prints the CPU seconds, and the most memory
that was held, pages of files included, which the system could take back.
"""

import csv
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

count = int(sys.argv[1])
root = Path(__file__).parents[1]
words = sorted({word for path in root.glob("docs/*.md") for word in path.read_text().split() if word.isalpha()})
with tempfile.TemporaryDirectory() as name:
    folder, chance = Path(name), random.Random(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for _ in range(count):
            text = " ".join(chance.choices(words, k=chance.randint(8, 22)))
            writer.writerow((text, f"class {chance.randrange(10)}"))
    options = ["task=text_classification", f"task.path={folder / 'rows.csv'}", f"runs={folder / 'runs'}"]
    command = [sys.executable, "-m", "ulmfit_style", "plan", "finetune", *options, "adapt=none", "compare=false"]
    _, status, used = os.wait4(subprocess.Popen(command, cwd=root).pid, 0)
    cpu = used.ru_utime + used.ru_stime
    print(f"{count:,} rows: ended with {status}: {cpu:.0f} CPU s, {used.ru_maxrss * 1024 / 1e6:,.0f} MB at most")
