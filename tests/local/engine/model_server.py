"""A model server for tests: real HTTP on the loopback interface, an invented tokenizer and a model that is a script.

Plays llama-server, vLLM or Ollama, each with its own words for things, and misbehaves where a test tells it to. One
token for every character, and one for each mark of the chat template.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARKS = {"<|im_start|>": 1, "<|im_end|>": 2}
FIRST_CHARACTER = 10
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANSWERS = {"yes": 0.7, "no": 0.2, "not stated": 0.1}


def tokens_of(text, *, markup):
    pieces = re.split(r"(<\|im_start\|>|<\|im_end\|>)", text) if markup else [text]
    return [
        token
        for piece in pieces
        for token in ([MARKS[piece]] if markup and piece in MARKS else [FIRST_CHARACTER + ord(one) for one in piece])
    ]


def text_of(tokens):
    marks = {token: mark for mark, token in MARKS.items()}
    return "".join(marks[token] if token in marks else chr(token - FIRST_CHARACTER) for token in tokens)


def rendered(messages, *, answered=False):
    text = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    return text if answered else f"{text}<|im_start|>assistant\n"


@dataclass
class Script:
    """What the server is, and what it was asked.

    Attributes:
        style: `llama`, `vllm` or `ollama`.
        answers: candidate -> how much the model likes it, whatever is asked.
        questions: words of a question -> other `answers` for it.
        honours: names of the fields of constraints that are honoured; the others are ignored without a word.
        likeliest: the most log-probabilities it gives; more asked for is an error; 0: it gives none.
        vocabulary: how many tokens it knows, where it gives the log-probabilities of all if asked; 0: it does not.
        spoil: changes log-probabilities before they are told.
        fault: called with each request; returns True where it has dealt with it.
        cut_at: tokens of a prompt that are read; the rest is cut off without a word.
        models: ids of its models.
    """

    style: str = "llama"
    answers: dict = field(default_factory=lambda: dict(ANSWERS))
    questions: dict = field(default_factory=dict)
    honours: tuple = ("grammar",)
    likeliest: int = 100
    vocabulary: int = 0
    spoil: object = staticmethod(lambda logprobs: logprobs)
    fault: object = None
    cut_at: int = 10**9
    context: int = 4096
    models: tuple = ("reader-1",)
    template: str = TEMPLATE
    requests: list = field(default_factory=list)
    most_at_once: int = 0
    now: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def liked(self, prompt):
        question = prompt.rsplit("<|im_start|>user\n", 1)[-1]
        found = (answers for words, answers in self.questions.items() if words in question)
        return next(found, self.answers)

    def next_logprobs(self, tokens):
        """Token -> log-probability behind a prompt: nine tenths for the script, the rest for a letter nobody asks."""
        prompt, _, written = text_of(tokens).rpartition("<|im_start|>assistant\n")
        weights = {FIRST_CHARACTER + ord("@"): 0.1}
        for candidate, weight in self.liked(prompt).items():
            left = [*tokens_of(candidate, markup=False), MARKS["<|im_end|>"]]
            begun = tokens_of(written, markup=False)
            if left[: len(begun)] == begun:
                weights[left[len(begun)]] = weights.get(left[len(begun)], 0) + 0.9 * weight
        total = sum(weights.values())
        return {token: math.log(weight / total) for token, weight in weights.items()}

    def written(self, prompt, body):
        """What the model writes: constrained where that is honoured, else chatter."""
        candidates = allowed(body, self.honours)
        if candidates is None:
            return "Hello there."
        liked = self.liked(prompt)
        best = max(candidates, key=lambda candidate: liked.get(candidate, 0))
        return json.dumps({"answer": best}) if "response_format" in body else best


def allowed(body, honours):
    """Candidates that a request allows, as far as the server honours it."""
    if "grammar" in body and "grammar" in honours:
        return grammar_texts(body["grammar"])
    structured = body.get("structured_outputs", {})
    if "structured_outputs" in honours and structured:
        return structured.get("choice") or grammar_texts(structured["grammar"])
    if "guided_choice" in body and "guided_choice" in honours:
        return body["guided_choice"]
    if "response_format" in body and "response_format" in honours:
        return body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
    return None


def grammar_texts(grammar):
    """Texts of `root ::= "a" | "b"`; of the one grammar with brackets that the probe sends, the first."""
    if "(" in grammar:
        return ["qvx-17\nzpd"] if '"qvx"' in grammar else None
    literals = re.findall(r'"((?:[^"\\]|\\.)*)"', grammar)
    return [re.sub(r"\\x(..)", lambda found: chr(int(found[1], 16)), literal) for literal in literals]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_one({})

    def do_POST(self):
        self.handle_one(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def handle_one(self, body):
        script = self.server.script
        with script.lock:
            script.requests.append((self.path, body, dict(self.headers)))
            script.now += 1
            script.most_at_once = max(script.most_at_once, script.now)
        reply = None
        try:
            if script.fault is None or not script.fault(self, body):
                reply = reply_to(script, self.path, body)
        finally:
            with script.lock:  # before the reply, which lets the next request come
                script.now -= 1
        if reply is not None:
            self.say(*reply)

    def say(self, status, content, **headers):
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


NOT_THERE = (404, {"error": "no such path"})


def reply_to(script, path, body):
    if path == "/v1/models":
        return 200, {"object": "list", "data": [model_entry(script, name) for name in script.models]}
    own = {"llama": "/props", "vllm": "/version", "ollama": "/api/version"}[script.style]
    if path == own:
        return 200, about(script)
    if path == "/api/tags" and script.style == "ollama":
        return 200, {"models": [{"name": name, "digest": f"digest of {name}"} for name in script.models]}
    if path in ("/tokenize", "/detokenize") and script.style != "ollama":
        return tokenizer_reply(script, path, body)
    if path == "/v1/completions" and script.style != "ollama":
        return completion_reply(script, body)
    if path == "/v1/chat/completions":
        text = script.written(rendered(body["messages"]), body)
        read = min(len(rendered(body["messages"]).split()), script.cut_at)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": len(text)}}
    return NOT_THERE


def model_entry(script, name):
    entry = {"id": name, "object": "model", "created": time.time_ns()}
    if script.style == "llama":
        return {**entry, "owned_by": "llamacpp", "meta": {"n_vocab": script.vocabulary or 70000, "n_params": 12345}}
    if script.style == "vllm":
        return {**entry, "owned_by": "vllm", "root": "/models/reader", "max_model_len": script.context}
    return {**entry, "owned_by": "library"}


def about(script):
    if script.style != "llama":
        return {"version": "0.99"}
    special = {"bos_token": "", "eos_token": "<|im_end|>"}
    settings = {"n_ctx": script.context}
    return {
        "default_generation_settings": settings,
        "build_info": "b9999",
        "chat_template": script.template,
        "model_path": "/secret/place/reader.gguf",
        **special,
    }


def tokenizer_reply(script, path, body):
    field_name = "content" if script.style == "llama" else "prompt"
    if path == "/detokenize":
        return 200, {field_name: text_of(body["tokens"])}
    if script.style == "vllm" and "messages" in body:
        text = rendered(body["messages"], answered=not body["add_generation_prompt"])
        return 200, {"tokens": tokens_of(text, markup=True), "max_model_len": script.context}
    if field_name not in body:
        return 400, {"error": "field required"}
    markup = script.style == "vllm" or body["parse_special"]  # vLLM cannot tell text from markup
    return 200, {"tokens": tokens_of(body[field_name], markup=markup)}


def completion_reply(script, body):
    prompt = body["prompt"]
    if len(prompt) + body["max_tokens"] > script.context:
        return 400, {"error": {"message": "this is longer than the model's maximum context length"}}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": 1}
    if "logprobs" not in body:
        text = script.written(text_of(prompt), body)
        reason = "stop" if len(text) <= body["max_tokens"] else "length"
        return 200, {"choices": [{"text": text[: body["max_tokens"]], "finish_reason": reason}], "usage": usage}
    logprobs, most = script.next_logprobs(prompt), script.likeliest
    if body["logprobs"] == script.vocabulary:
        all_tokens = range(FIRST_CHARACTER, FIRST_CHARACTER + script.vocabulary)
        logprobs, most = dict.fromkeys(all_tokens, -30.0) | logprobs, body["logprobs"]
    elif body["logprobs"] > script.likeliest > 0:
        return 400, {"error": {"message": "too many logprobs"}}
    pairs = sorted(logprobs.items(), key=lambda pair: -pair[1])[:most]
    first = pairs[0][0] if pairs else 0
    told = list(script.spoil(dict(pairs)).items())
    logprobs = None
    if script.likeliest and script.style == "llama":
        tops = [{"id": token, "token": text_of([token]), "logprob": logprob} for token, logprob in told]
        logprobs = {"content": [{"id": first, "logprob": 0.0, "top_logprobs": tops}]}
    elif script.likeliest:
        named = {f"token_id:{token}": logprob for token, logprob in told}
        logprobs = {"tokens": [f"token_id:{first}"], "top_logprobs": [named]}
    return 200, {"choices": [{"text": "x", "finish_reason": "length", "logprobs": logprobs}], "usage": usage}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that went away are part of the tests."""


@contextmanager
def model_server(**script):
    """A running server; `Script.url` is where."""
    server = Server(("127.0.0.1", 0), Handler)
    server.script = Script(**script)
    server.script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
