"""Replies on disk: found again, never trusted when damaged."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from medorchestra.cloud.desk.client import ChatReply, ChatRequest, FinishReason
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.errors import StorageError

REQUEST = ChatRequest("large-1", "You write plans.", "The guideline.")
REPLY = ChatReply('{"finding": "größe ≤ 2 cm \ud800"}', 120, 9, "large-1-2026", FinishReason.LENGTH)
HERE = "https://host.example/v1"


def only_file(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("reply", [REPLY, ChatReply("", None, None, "large-1")])
def test_a_reply_is_found_again_by_another_run(tmp_path, reply):
    ReplyCache(tmp_path / "new" / "cache").store(REQUEST, HERE, reply)
    assert ReplyCache(tmp_path / "new" / "cache").find(REQUEST, HERE) == reply


@pytest.mark.parametrize(
    "other",
    [replace(REQUEST, user="Another."), replace(REQUEST, sample=1), replace(REQUEST, model="large-2")],
)
def test_another_request_does_not_find_it(tmp_path, other):
    cache = ReplyCache(tmp_path)
    cache.store(REQUEST, HERE, REPLY)
    assert cache.find(other, HERE) is None
    assert cache.find(REQUEST, "https://other.example/v1") is None


def cut_short(text):
    return text[: len(text) // 2]


def other_text(text):
    return text.replace("finding", "fiction")


def other_request(text):
    return text.replace(REQUEST.digest, replace(REQUEST, sample=1).digest)


def without_reply(text):
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "reply"})


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        other_text,
        other_request,
        without_reply,
        lambda _: "",
        lambda _: "[]",
        lambda _: "null",
        lambda _: "[" * 9**5,
    ],
)
def test_a_damaged_entry_is_passed_over_and_can_be_replaced(tmp_path, damage):
    cache = ReplyCache(tmp_path)
    cache.store(REQUEST, HERE, REPLY)
    path = only_file(tmp_path)
    whole = path.read_text(encoding="utf-8")
    path.write_text(damage(whole), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != whole
    assert cache.find(REQUEST, HERE) is None
    cache.store(REQUEST, HERE, REPLY)
    assert cache.find(REQUEST, HERE) == REPLY


def test_an_entry_that_is_not_text_is_passed_over(tmp_path):
    cache = ReplyCache(tmp_path)
    cache.store(REQUEST, HERE, REPLY)
    only_file(tmp_path).write_bytes(b"\xff\xfe\x00")
    assert cache.find(REQUEST, HERE) is None


def test_a_crash_while_writing_leaves_the_old_reply_and_no_debris(tmp_path, monkeypatch):
    cache = ReplyCache(tmp_path)
    cache.store(REQUEST, HERE, REPLY)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free the disk"):
        cache.store(REQUEST, HERE, replace(REPLY, text="new"))
    assert cache.find(REQUEST, HERE) == REPLY
    assert only_file(tmp_path).suffix == ".json"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/cache: cannot be made"):
        ReplyCache(tmp_path / "file" / "cache")


def test_a_reply_that_is_set_aside_is_asked_for_anew_and_stays_to_be_looked_at(tmp_path):
    cache = ReplyCache(tmp_path)
    cache.store(REQUEST, HERE, REPLY)
    cache.set_aside(REQUEST, HERE)
    assert cache.find(REQUEST, HERE) is None
    assert json.loads(only_file(tmp_path).read_text(encoding="utf-8"))["reply"]["text"] == REPLY.text
    cache.set_aside(REQUEST, HERE)  # nothing there any more: nothing to do


def test_threads_that_store_the_same_reply_at_once_leave_one_whole_entry(tmp_path):
    cache = ReplyCache(tmp_path)
    threads = [threading.Thread(target=cache.store, args=(REQUEST, HERE, REPLY)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.find(REQUEST, HERE) == REPLY
    assert only_file(tmp_path).suffix == ".json"


def test_no_prompt_is_written_into_the_cache(tmp_path):
    ReplyCache(tmp_path).store(REQUEST, HERE, REPLY)
    text = only_file(tmp_path).read_text(encoding="utf-8")
    assert "guideline" not in text
    assert "You write" not in text
