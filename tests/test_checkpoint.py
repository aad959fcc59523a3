"""checkpoint: a file is whole or it is refused."""

import errno
import json
import os
import pickle
import stat

import pytest
import torch

from tinyevo.checkpoint import copied, dumps, load, loads, save, write

STATE = {
    "number": 3,
    "real": 0.1,
    "flag": True,
    "nothing": None,
    "text": "relu -> elu",
    "list": [1, [2.5, "three"], {"deep": torch.arange(3)}],
    "nested": {
        "weights": torch.randn(2, 3),
        "steps": torch.tensor(5.0),
        "flags": torch.tensor([True, False]),
    },
    "infinite": float("-inf"),
}


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def test_a_state_comes_back_as_it_was(tmp_path):
    assert equal(loads(dumps(STATE)), STATE)
    save(STATE, tmp_path / "state.pt")
    assert equal(load(tmp_path / "state.pt"), STATE)


def test_tuples_come_back_as_lists_and_nan_as_nan():
    back = loads(dumps({"sizes": (64, 64), "nan": float("nan")}))
    assert back["sizes"] == [64, 64] and back["nan"] != back["nan"]


def test_equal_states_give_equal_bytes_and_equal_files_whatever_their_name(tmp_path):
    twin = {
        key: value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in STATE.items()
    }
    twin["text"] = "".join(["relu", " -> elu"])  # equal, but another object
    assert dumps(twin) == dumps(STATE)
    save(STATE, tmp_path / "one.pt")
    save(twin, tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_a_checkpoint_can_be_looked_at_with_torch_alone(tmp_path):
    save(STATE, tmp_path / "state.pt")
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    state = json.loads(content["json"])["state"]
    assert state["number"] == 3
    assert equal(
        content["tensors"][state["nested"]["weights"]["$tensor"]], STATE["nested"]["weights"]
    )


def test_every_flipped_bit_is_noticed():
    data = dumps({"weights": torch.zeros(3), "text": "x"})
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match="damaged"):
            loads(bytes(damaged))


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 500, -1])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, length):
    path = tmp_path / "state.pt"
    path.write_bytes(dumps(STATE)[:length])
    with pytest.raises(ValueError, match=r"cannot load .*state\.pt: it is damaged"):
        load(path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def write_json(path):
    path.write_text('{"generation": 3}')


def write_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def write_torch(path):
    torch.save({"weights": torch.zeros(3)}, path)


def write_malicious_torch(path):
    torch.save(Bomb(), path)


def write_nothing(path):
    path.touch()


FOREIGN = [write_nothing, write_json, write_pickle, write_torch, write_malicious_torch]


@pytest.mark.parametrize("write", FOREIGN)
def test_a_foreign_file_is_refused_untouched_and_never_executed(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.pt"
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"cannot load .*foreign\.pt"):
        load(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["foreign.pt"]


def test_even_behind_a_right_digest_nothing_is_executed(tmp_path, monkeypatch):
    import hashlib
    import io

    monkeypatch.chdir(tmp_path)
    archive = io.BytesIO()
    torch.save(Bomb(), archive)
    path = tmp_path / "foreign.pt"
    path.write_bytes(archive.getvalue() + hashlib.sha256(archive.getvalue()).digest())
    with pytest.raises(ValueError, match="cannot load"):
        load(path)
    assert os.listdir(tmp_path) == ["foreign.pt"]


@pytest.mark.parametrize(
    "name, writer",
    [("tinyevo-99", "another version of tinyevo"), ("tinyevo-1", "tinyevo 0.1.0")],
)
def test_another_format_is_refused_with_both_names_and_its_writer(monkeypatch, name, writer):
    monkeypatch.setattr("tinyevo.checkpoint.FORMAT", name)
    data = dumps({})
    monkeypatch.undo()
    rule = f"its format is '{name}', of {writer}; this version reads 'tinyevo-2'"
    with pytest.raises(ValueError, match=rule):
        loads(data)


def test_a_copy_of_plain_state_shares_nothing_with_it():
    state = {"list": [torch.ones(2, requires_grad=True), (1, 2)], "text": "x"}
    copy = copied(state)
    assert equal(copy, {"list": [torch.ones(2), [1, 2]], "text": "x"})
    state["list"][0].data.zero_()
    state["list"].append("more")
    assert equal(copy, {"list": [torch.ones(2), [1, 2]], "text": "x"})
    assert not copy["list"][0].requires_grad


def test_what_is_not_plain_data_is_refused_when_it_is_saved(tmp_path):
    with pytest.raises(TypeError, match=r"plain data and tensors, not \{1, 2\}"):
        save({"config": {1, 2}}, tmp_path / "state.pt")
    assert os.listdir(tmp_path) == []


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.pt")


@pytest.mark.parametrize("stage", ["dumps", "os.fsync", "os.replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, stage):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "no space left")

    path = tmp_path / "state.pt"
    save({"generation": 1}, path)
    monkeypatch.setattr(f"tinyevo.checkpoint.{stage}", fail)
    with pytest.raises(
        OSError, match="no space left.*" if stage == "dumps" else r"no space left: '.*state\.pt'"
    ):
        save({"generation": 2}, path)
    monkeypatch.undo()
    assert load(path) == {"generation": 1}
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_file_where_a_folder_should_be_is_named_by_the_path_that_was_asked_for(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(OSError) as caught:
        save({"generation": 1}, tmp_path / "runs" / "state.pt")
    assert caught.value.filename == str(tmp_path / "runs" / "state.pt")


def test_a_file_that_holds_the_bytes_already_is_left_alone(tmp_path):
    path = tmp_path / "state.pt"
    save({"generation": 1}, path)
    os.utime(path, ns=(5, 5))
    save({"generation": 1}, path)
    assert path.stat().st_mtime_ns == 5
    save({"generation": 2}, path)
    assert path.stat().st_mtime_ns != 5


def test_two_files_of_a_folder_can_be_written_at_the_same_time(tmp_path, monkeypatch):
    fsync, nested = os.fsync, iter([True])

    def write_another(file):
        if next(nested, False):  # the first write stands still here, until the second is done
            write(tmp_path / "two.pt", b"second")
        fsync(file)

    monkeypatch.setattr("tinyevo.checkpoint.os.fsync", write_another)
    write(tmp_path / "one.pt", b"first")
    assert (tmp_path / "one.pt").read_bytes() == b"first"
    assert (tmp_path / "two.pt").read_bytes() == b"second"
    assert sorted(os.listdir(tmp_path)) == ["one.pt", "two.pt"]


def test_all_bytes_are_forced_to_the_disk_beside_the_file_before_they_take_its_name(
    tmp_path, monkeypatch
):
    path, seen = tmp_path / "state.pt", []
    write(path, b"old")

    def look(file):  # what a crash in this moment would leave
        beside = [other.name for other in tmp_path.iterdir() if other != path]
        seen.append((os.fstat(file).st_size, path.read_bytes(), len(beside)))

    monkeypatch.setattr("tinyevo.checkpoint.os.fsync", look)
    write(path, b"much newer")
    assert seen == [(10, b"old", 1)]
    assert path.read_bytes() == b"much newer"


@pytest.mark.parametrize("data", [b"old", b"new"])
def test_what_a_killed_write_left_behind_is_cleared_by_the_next_one(tmp_path, monkeypatch, data):
    path = tmp_path / "state.pt"
    write(path, b"old")
    monkeypatch.setattr("tinyevo.checkpoint.os.replace", lambda *names: None)  # killed before it
    write(path, b"half")
    monkeypatch.undo()
    assert len(os.listdir(tmp_path)) == 2
    write(path, data)
    assert os.listdir(tmp_path) == ["state.pt"] and path.read_bytes() == data


def test_a_tensor_comes_back_without_its_gradient():
    weight = torch.ones(3, requires_grad=True)
    back = loads(dumps({"leaf": weight, "result": weight * 2}))
    assert not back["leaf"].requires_grad and not back["result"].requires_grad
    assert weight.requires_grad


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyevo.checkpoint.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "state.pt", b"x")
    assert os.listdir(tmp_path) == []


def test_what_is_loaded_can_be_built_into_something_or_the_file_cannot_be_loaded(tmp_path):
    path = tmp_path / "state.pt"
    save({"number": 3}, path)
    assert load(path, lambda state: state["number"] + 1) == 4
    with pytest.raises(
        ValueError,
        match=r"cannot load .*state\.pt: it holds something else \(KeyError\('weights'\)\)",
    ):
        load(path, lambda state: state["weights"])


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_lack_of_memory_is_not_taken_for_a_foreign_file(tmp_path, error):
    def build(state):
        raise error("out of memory")

    save({"number": 3}, tmp_path / "state.pt")
    with pytest.raises(error):
        load(tmp_path / "state.pt", build)


def test_a_saved_file_replaces_the_old_one_and_has_ordinary_rights(tmp_path):
    path = tmp_path / "state.pt"
    save({"generation": 1}, path)
    save({"generation": 2}, path)
    assert load(path) == {"generation": 2}
    (tmp_path / "ordinary").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


def test_equal_tensors_give_equal_bytes_however_they_lie_in_memory():
    row, square = torch.arange(6.0), torch.arange(6.0).reshape(2, 3)
    assert dumps({"w": row[:3]}) == dumps({"w": row[:3].clone()})
    assert dumps({"w": square.T}) == dumps({"w": square.T.contiguous()})
    assert dumps({"w": [row, row]}) == dumps({"w": [row, row.clone()]})
