"""Row (d) of `peers.py`: llama-server with a slot for each of 8 concurrent clients and its prompt cache.

Set up as well as the server allows: a client takes a report and asks its findings one after the other on a slot of its
own, report first, so that the slot computes the report once; the server batches the clients' work. (That is also how
LLMAIx drives it: reports at the same time, the variables of a report in turn.) Prompts are sent as the very tokens that
medorchestra reads. The cache of older prompts in main memory is off: no hospital reads the same report twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peer_row import Answers, NotMeasuredError, RoundResult, Row, answer_schema, peak_mb, read_answer
from peer_task import PeerTask, TaskReport

CLIENTS = 8
SLOT_TOKENS = 2048
"""Context of each slot."""
ANSWER_TOKENS = 48
START_SECONDS = 180
REQUEST_SECONDS = 1800


class LlamaServer:
    """A llama-server of our own on a free port of this machine's loopback; stopped by `close`, whatever happens."""

    def __init__(self, binary: str, arguments: Sequence[str]) -> None:
        """Start it and wait until it has loaded.

        Raises:
            NotMeasuredError: it does not start.
        """
        if not Path(binary).is_file():
            raise NotMeasuredError("no such llama-server")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [binary, *arguments, "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, preexec_fn=_die_with_parent
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotMeasuredError(f"llama-server ended with code {self.process.returncode} while starting")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise NotMeasuredError(f"llama-server was not ready after {START_SECONDS} seconds")

    def close(self) -> None:
        """Stop it. Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Client:
    """One client, on one slot."""

    def __init__(self, port: int, slot: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
        self._slot = slot

    def complete(self, prompt: list[int], schema: dict[str, Any]) -> tuple[str, int]:
        """What the model writes, and the tokens computed for it.

        Of the tokens written the last one is never computed: nothing follows it.

        Raises:
            RuntimeError: the server refuses.
        """
        body = {
            "prompt": prompt,
            "json_schema": schema,
            "n_predict": ANSWER_TOKENS,
            "temperature": 0,
            "cache_prompt": True,
            "id_slot": self._slot,
        }
        self._connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        reply = json.loads(response.read())
        self._connection.close()  # opened again for the next one: the server hangs up on idle clients
        if response.status != 200:
            raise RuntimeError(f"llama-server answered {response.status}")
        return str(reply["content"]), computed_tokens(reply["timings"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def computed_tokens(timings: dict[str, Any]) -> int:
    """Tokens that the server computed for a request: `prompt_n` are those of the prompt not found in the slot."""
    return int(timings["prompt_n"]) + max(int(timings["predicted_n"]) - 1, 0)


class Server(Row):
    """(d): 8 clients at once."""

    def __init__(self, task: PeerTask, *, form: str, binary: str | None) -> None:
        super().__init__(task)
        if binary is None:
            raise NotMeasuredError("no llama-server (build_llama_server.sh makes one; then --llama-server PATH)")
        self._form = form
        model = task.fused if form == "compact" else task.model
        threads = str(task.threads)
        slots = ["--parallel", str(CLIENTS), "--ctx-size", str(CLIENTS * SLOT_TOKENS), "--cache-ram", "0"]
        arguments = ["--model", model, "--threads", threads, "--threads-batch", threads, *slots]
        self._binary = binary
        self._server = LlamaServer(binary, [*arguments, "--batch-size", "512", "--ubatch-size", "512"])
        self._clients = [Client(self._server.port, slot) for slot in range(CLIENTS)]

    @property
    def versions(self) -> dict[str, str]:
        """What the binary says of itself."""
        said = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=False)
        lines = [line for line in (said.stderr + said.stdout).splitlines() if line.startswith("version")]
        return {"llama-server": lines[0].removeprefix("version: ") if lines else "unknown"}

    @property
    def peak_mb(self) -> float:
        """Of the server; its clients are not counted."""
        return peak_mb(str(self._server.process.pid))

    def warm(self) -> None:
        """One question on the warm-up report in every slot."""
        self._work([(slot, self.task.warm_up) for slot in range(CLIENTS)], self.task.findings[:1])

    def read_all(self, reports: Sequence[TaskReport]) -> RoundResult:
        """All reports, handed to the clients as they become free."""
        started = time.perf_counter()
        answers, tokens = self._work([(None, report) for report in reports], self.task.findings)
        return RoundResult(time.perf_counter() - started, [], tokens, answers)

    def _work(
        self, jobs: Sequence[tuple[int | None, TaskReport]], findings: Sequence[str]
    ) -> tuple[dict[str, Answers], int]:
        """Reports, each for a certain slot or for the next free one; every client is a thread."""
        waiting = deque(report for slot, report in jobs if slot is None)
        given = {slot: report for slot, report in jobs if slot is not None}
        answers: dict[str, Answers] = {}
        tokens: list[int] = []
        failures: list[Exception] = []

        def work(slot: int) -> None:
            try:
                if slot in given:
                    self._read(slot, given[slot], findings)
                while waiting:
                    report = waiting.popleft()  # raises IndexError where another client was faster
                    found, computed = self._read(slot, report, findings)
                    answers[report.id] = found
                    tokens.append(computed)
            except IndexError:
                return
            except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
                failures.append(error)

        threads = [threading.Thread(target=work, args=(slot,)) for slot in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return answers, sum(tokens)

    def _read(self, slot: int, report: TaskReport, findings: Sequence[str]) -> tuple[Answers, int]:
        task, answers, tokens = self.task, {}, 0
        for finding in findings:
            question = task.question_tokens[self._form][finding]
            prompt = [*task.head_tokens[self._form], *report.tokens, *question]
            content, computed = self._clients[slot].complete(prompt, answer_schema(task.labels[finding]))
            answers[finding] = read_answer(content, task.labels[finding])
            tokens += computed
        return answers, tokens

    def close(self) -> None:
        """Stop clients and server."""
        for client in self._clients:
            client.close()
        self._server.close()


def _die_with_parent() -> None:
    """In the server's process: end when the row's process ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
