"""Every container gives the same examples; every damage to a file is named by line or byte, with the way out."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from forgetless.data.sources import read_examples
from forgetless.errors import DataError

ROWS = [{"question": "Où?", "answer": 'In "Paris",\nFrance'}, {"question": "When?", "answer": "Now\u2028here"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
LINE = '{"question": "Q", "answer": "A"}\n'


def write_csv(path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def save_arrow(directory: Path, rows: list[dict[str, Any]]) -> None:
    """What `datasets.Dataset.save_to_disk` leaves."""
    directory.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(directory / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    (directory / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def write_container(path: Path) -> None:
    """Writes ROWS as the name of `path` says."""
    if not path.suffix:
        save_arrow(path, ROWS)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix in (".csv", ".tsv"):
        write_csv(path, "," if path.suffix == ".csv" else "\t")
    else:
        path.write_text(json.dumps(ROWS, indent=2) if path.suffix == ".json" else LINES, encoding="utf-8")


@pytest.mark.parametrize("name", ["d.jsonl", "d.ndjson", "d.json", "d.csv", "d.tsv", "d.parquet", "saved"])
def test_containers_agree(tmp_path: Path, name: str) -> None:
    write_container(tmp_path / name)
    assert [(e.prompt_text, e.answer_text) for e in read_examples(tmp_path / name)] == [tuple(r.values()) for r in ROWS]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.tsv"])
def test_text_containers_may_be_gzipped_and_carry_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    write_container(tmp_path / name)
    known = read_examples(tmp_path / name)
    marked = b"\xef\xbb\xbf" + (tmp_path / name).read_bytes()
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(marked))
    (tmp_path / f"marked-{name}").write_bytes(marked)
    assert read_examples(tmp_path / f"{name}.gz") == known
    assert read_examples(tmp_path / f"marked-{name}") == known


@pytest.mark.parametrize("document", [{"version": 1, "data": ROWS}, {"train": ROWS, "test": []}])
def test_json_lists_may_stand_under_data_or_train(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(document))
    assert len(read_examples(path)) == 2


def test_json_lines_may_be_named_json(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(LINES, encoding="utf-8")
    assert len(read_examples(path)) == 2


def test_blank_lines_windows_line_ends_and_a_missing_last_line_end_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\r\n" + LINE.replace("\n", "\r\n").encode() + b"  \n" + LINE.strip().encode())
    assert len(read_examples(path)) == 2


def test_saved_dictionaries_give_their_train_split(tmp_path: Path) -> None:
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        save_arrow(tmp_path / "saved" / split, rows)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert len(read_examples(tmp_path / "saved")) == 2
    assert len(read_examples(tmp_path / "saved" / "test")) == 1


def test_conversations_come_out_of_parquet(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "id": 1}] * 3), tmp_path / "d.parquet")
    examples = read_examples(tmp_path / "d.parquet")
    assert [e.answer_text for e in examples] == ["A"] * 3
    assert examples[0].metadata == {"id": 1}


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.parquet", "saved"])
def test_reading_leaves_no_trace(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    write_container(path)
    monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
    files = sorted(p for p in tmp_path.rglob("*"))
    before = [(p, p.stat().st_mtime_ns, p.read_bytes()) for p in files if p.is_file()]
    for file, _, _ in before:
        file.chmod(0o444)
    read_examples(path, seed=1)
    assert sorted(p for p in tmp_path.rglob("*")) == files
    assert [(p, p.stat().st_mtime_ns, p.read_bytes()) for p, _, _ in before] == before


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("d.jsonl", LINE + LINE[:20], 2, "is not JSON .* looks cut off"),
        ("d.jsonl", LINE + LINE[:20] + "\n" + LINE, 2, "is not JSON .*; write one object a line"),
        ("d.jsonl", LINE + LINE.strip() + LINE, 2, "more than one object"),
        ("d.jsonl", "[\n" + LINE + "]", 1, r"name the file \.json"),
        ("d.jsonl", LINE + "[1]\n", 2, "is not an object"),
        ("d.jsonl", "{'question': 'Q'}\n", 1, "in double quotes"),
        ("d.jsonl", "[" * 100_000 + "\n", 1, "nested too deeply"),
        ("d.jsonl", '{"a": ' + "9" * 5000 + "}\n", 1, "is not JSON"),
        ("d.jsonl", "", None, "is empty"),
        ("d.jsonl", "\n \n\n", None, "holds only blank lines"),
        ("d.jsonl", LINE.encode("utf-16"), 1, "is UTF-16, .*iconv -f UTF-16 -t UTF-8 "),
        ("d.jsonl", LINE.encode("utf-32"), 1, "is UTF-32, .*iconv -f UTF-32 -t UTF-8 "),
        ("d.jsonl", LINE.encode("utf-16-le"), 1, "NUL byte at byte offset 1: .*iconv -f UTF-16LE "),
        ("d.jsonl", LINE.encode("utf-16-be"), 1, "NUL byte at byte offset 0: .*iconv -f UTF-16BE "),
        (
            "d.jsonl",
            LINE.encode() + b'{"text": "\xe9t\xe9"}\n',
            2,
            "byte 0xe9 at byte offset 43 .*iconv -f LATIN1 -t UTF-8 ",
        ),
        ("d.jsonl", b"\xef\xbb\xbf" + b'{"text": "\xe9t\xe9"}\n', 1, "byte 0xe9 at byte offset 13 "),
        ("d.jsonl", LINE.encode() + '{"text": "é'.encode()[:-1], 2, "middle of a character: the file looks cut off"),
        ("d.jsonl", LINE + LINE.replace("A", "a\0b"), 2, f"NUL byte at byte offset {len(LINE) + 30}: .*damaged"),
        ("d.jsonl", gzip.compress(LINE.encode(), mtime=0), 1, r"add \.gz"),
        ("d.csv", b"PK\x03\x04 a spreadsheet", 1, "export it as CSV"),
        ("d.jsonl.gz", gzip.compress(LINE.encode() * 100, mtime=0)[:-9], None, "looks cut off"),
        (
            "d.jsonl.gz",
            gzip.compress(LINE.encode("utf-16"), mtime=0),
            1,
            r"gzip -dc .* \| iconv -f UTF-16 -t UTF-8 \| gzip > ",
        ),
        ("d.jsonl.gz", LINE, None, "cannot be read .*[Nn]ot a gzipped file"),
        ("d.json", LINE, None, r"holds one object \(keys 'question', 'answer'\), not a list"),
        ("d.json", '{\n"text": "a"}\n' + LINE, 3, "Extra data"),
        ("d.json", "3", None, "single value, not a list"),
        ("d.json", "[]", None, "an empty list"),
        ("d.json", "[" + LINE + ", 3]", 2, "item 2 of the list is not an object"),
        ("d.json", "[" + LINE + "," + LINE[:15], 2, "looks cut off"),
        ("d.json", "[" + LINE + LINE + "]", 2, r"is not JSON \(Expecting ',' delimiter, column 1\)$"),
        ("d.json", "[" * 100_000, None, "nested too deeply"),
        ("d.json", " \n", None, "holds only blank lines"),
        ("d.csv", "question,answer\nQ,A\nQ,A,B\n", 3, "has 3 cells, the header has 2 .*double quotes"),
        ("d.csv", 'question,answer\n"Q\n1",A\n\nQ\nQ,A\n', 5, "has 1 cells, the header has 2 .*double quotes"),
        ("d.csv", "question,answer\nQ,A\nQ", 3, "looks cut off"),
        ("d.csv", 'question,answer\nQ,A\nQ,"A\nB', 3, "never ends: the file looks cut off"),
        ("d.csv", 'question,answer\nQ,"A"B\n', 2, "write each double quote twice"),
        ("d.csv", "question,answer\n", None, "a header but no rows"),
        ("d.csv", "question;answer\nQ;A\n", 1, "one cell that holds ';'"),
        ("d.csv", "text,text\na,b\n", 1, "name of two columns"),
        (
            "d.csv",
            "question,answer\nQ," + "a" * 200_000 + "\n",
            2,
            "more than 131072 characters; save the data as JSONL",
        ),
        ("d.csv", "question,answer\nQ,a\rb\n", 2, "bare carriage return"),
        ("d.csv", "question,answer\nQ,\n", 2, "is empty"),
        ("d.csv", "", None, "is empty"),
        ("d.parquet", b"PAR1 not really", None, "cannot be read as Parquet"),
        ("d.parquet", b"", None, "cannot be read as Parquet"),
        ("d.txt", "a\n", None, r"extension '\.txt' is none of \.jsonl"),
        ("d", "a\n", None, "extension '' is none of"),
        ("d.parquet.gz", b"", None, r"extension '\.gz' is none of"),
    ],
)
def test_damaged_files_are_named_with_line_and_way_out(
    tmp_path: Path, name: str, content: str | bytes, line: int | None, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_examples(path)
    assert caught.value.line == line
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "counts"), [("d.json", "item"), ("d.parquet", "row"), ("saved", "row")])
def test_faults_in_rows_say_what_is_counted(
    tmp_path: Path, name: str, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROWS", [ROWS[0], {"question": "Q", "answer": None}])
    write_container(tmp_path / name)
    with pytest.raises(DataError, match=rf"field 'answer': is null.* \({counts} 2\)$") as caught:
        read_examples(tmp_path / name)
    assert caught.value.line == 2


def test_rows_of_csv_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('question,answer\n"a\nb\nc",A\nQ,"  "\n')
    with pytest.raises(DataError, match="line 5, field 'answer': is empty"):
        read_examples(path)


def test_parquet_that_is_cut_off_or_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is it cut off"):
        read_examples(path)
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), path)
    with pytest.raises(DataError, match="has columns but no rows"):
        read_examples(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(DataError, match="name of two columns"):
        read_examples(path)


def test_directories_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one that datasets saved"):
        read_examples(tmp_path)
    (tmp_path / "train.jsonl").write_text(LINE)
    with pytest.raises(DataError, match=r"it holds train\.jsonl: name one"):
        read_examples(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["validation"]}')
    with pytest.raises(DataError, match=r"has no split 'train'; name the one you want: .*validation"):
        read_examples(tmp_path)


def test_saved_directories_without_rows(tmp_path: Path) -> None:
    save_arrow(tmp_path / "saved", [])
    with pytest.raises(DataError, match="has columns but no rows"):
        read_examples(tmp_path / "saved")


def test_the_advice_for_a_wrong_encoding_works(tmp_path: Path) -> None:
    path = tmp_path / "my data.jsonl"
    path.write_bytes('{"text": "été"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="convert it: ") as caught:
        read_examples(path)
    subprocess.run(str(caught.value).split("convert it: ")[1], shell=True, check=True)
    assert read_examples(tmp_path / "utf8-my data.jsonl")[0].text == "été"


@pytest.mark.parametrize(
    ("state", "message"),
    [("{}", "does not list the Arrow files"), ("[]", "is not a JSON object"), ("{", "is not JSON")],
)
def test_saved_directories_with_a_damaged_state(tmp_path: Path, state: str, message: str) -> None:
    save_arrow(tmp_path / "saved", ROWS)
    (tmp_path / "saved" / "state.json").write_text(state)
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "saved")


def test_saved_directories_with_damaged_arrow_files(tmp_path: Path) -> None:
    save_arrow(tmp_path / "saved", ROWS)
    arrow = tmp_path / "saved" / "data-00000-of-00001.arrow"
    arrow.write_bytes(b"damaged " * 100)
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        read_examples(tmp_path / "saved")
    arrow.unlink()
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        read_examples(tmp_path / "saved")


def test_a_missing_file_and_a_name_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no such file$"):
        read_examples(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"load_dataset\('someone/some_set'\)"):
        read_examples("someone/some_set")
