"""The code in docs/howto does what the text says."""

import json
import re
from pathlib import Path

from transformers import AutoTokenizer

from jqlight.token_format import Thinking, TokenFormat

TEXT = (Path(__file__).parents[1] / "docs" / "howto" / "own-data.md").read_text()


def test_the_benchmark_of_ones_own_is_short_and_reads_the_files_as_shown(tmp_path, tiny_qwen3):
    source = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    assert len(source.splitlines()) <= 40
    record = re.search(r"^    (\{.*\})$", TEXT, re.MULTILINE).group(1)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(record + "\n" + json.dumps({**json.loads(record), "id": "q2"}) + "\n")
    names: dict = {}
    exec(source, names)

    token_format = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    benchmark = names["MyQuestions"](path=str(tmp_path), prompts_per_step=1).bind(token_format)
    examples = benchmark.examples("train")
    assert sorted(example.id for example in examples) == ["q1", "q2"]
    assert examples[0].answer == "Scheldt"
    assert examples[0].prompt.startswith("Which river flows through Ghent?")
    assert token_format.decode_answer(examples[0].target_ids) == "Scheldt"


def test_a_single_file_is_divided_as_the_text_says(tmp_path, tiny_qwen3):
    source = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    names: dict = {}
    exec(source, names)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "question": "Q?", "answer": "A"}) + "\n" for i in range(1000)))
    token_format = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    benchmark = names["MyQuestions"](path=str(path)).bind(token_format)
    ids = [{e.id for e in benchmark.examples(split)} for split in ("train", "validation", "test")]
    assert [len(part) for part in ids] == [len(part - set().union(*(o for o in ids if o is not part))) for part in ids]
    assert sum(map(len, ids)) == 1000
    assert 750 < len(ids[0]) < 850
