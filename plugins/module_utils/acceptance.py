# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Believes tokens only: golden prompts, and a short load with every answer still held against its golden one."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from .errors import LlmError
from .openai_client import REQUEST_ERRORS, ChatClient


def check_prompts(prompts: list[dict]) -> list[dict]:
    """Return the golden prompts when they are whole, or raise LlmError."""
    if not prompts:
        raise LlmError("there are no golden prompts", wanted="at least one", found="none", remedy="give golden prompts")
    for number, prompt in enumerate(prompts, 1):
        lacking = [key for key in ("id", "prompt", "answer", "max_tokens") if key not in prompt]
        if lacking:
            raise LlmError(
                f"golden prompt {number} is not whole",
                wanted="id, prompt, answer and max_tokens",
                found="no " + ", ".join(lacking),
                remedy="complete it",
            )
        wrong = [key for key in ("prompt", "answer") if not isinstance(prompt[key], str)]
        wrong += ["match"] if prompt.get("match", "equal") not in ("equal", "contains") else []
        if isinstance(prompt["max_tokens"], bool) or not re.fullmatch(r"[1-9]\d{0,6}", str(prompt["max_tokens"])):
            wrong.append("max_tokens")
        if wrong:
            raise LlmError(
                f"golden prompt {number} has the wrong form",
                wanted="prompt and answer as text, max_tokens as a whole number from 1 on, match as equal or contains",
                found=", ".join(f"{key}: {prompt[key]!r}"[:80] for key in wrong),
                remedy="correct it",
            )
    return [dict(prompt, max_tokens=int(prompt["max_tokens"])) for prompt in prompts]


def is_golden(prompt: dict, text: str) -> bool:
    """True when ``text`` is the golden answer, or holds it where the prompt says ``match: contains``.

    Models that reason word an answer differently each time; what they think before it counts for nothing.
    """
    wanted, told = prompt["answer"].strip(), text.rpartition("</think>")[2]
    if prompt.get("match", "equal") == "equal":
        return text.strip() == wanted
    before, after = (r"(?<![A-Za-z0-9])" if wanted.isascii() else ""), (r"(?![A-Za-z0-9])" if wanted.isascii() else "")
    return re.search(before + re.escape(wanted) + after, told) is not None


def probe(client: ChatClient, prompts: list[dict]) -> dict:
    """Ask every golden prompt, the first one streamed too.

    :param prompts: [{id, prompt, answer, max_tokens, match}]; match is equal unless it says contains
    :return: passed, answers[] {id, passed, prompt, wanted, found, streamed, seconds, tokens, reason}, seconds
    """
    started = time.monotonic()
    answers = [_ask(client, prompt, streamed=False) for prompt in prompts]
    answers += [_ask(client, prompt, streamed=True) for prompt in prompts[:1]]
    return {
        "passed": bool(answers) and all(answer["passed"] for answer in answers),
        "answers": answers,
        "seconds": round(time.monotonic() - started, 3),
    }


def _ask(client: ChatClient, prompt: dict, streamed: bool) -> dict:
    answer = {
        "id": prompt["id"],
        "prompt": prompt["prompt"],
        "wanted": prompt["answer"],
        "found": "",
        "streamed": streamed,
        "passed": False,
        "seconds": 0.0,
        "tokens": 0,
        "reason": "",
    }
    try:
        reply = (client.stream if streamed else client.chat)(prompt["prompt"], prompt["max_tokens"])
    except REQUEST_ERRORS as error:
        return dict(answer, reason=f"no answer: {error or type(error).__name__}")
    answer.update(found=reply["text"], seconds=round(reply["seconds"], 4), tokens=reply["completion_tokens"])
    if not is_golden(prompt, reply["text"]):
        return dict(answer, reason="another answer than the golden one")
    if streamed and reply["chunks"] < 2:
        return dict(answer, reason="the answer came in one piece though a stream was asked for")
    return dict(answer, passed=True)


def load(client: ChatClient, prompts: list[dict], requests: int, concurrency: int) -> dict:
    """Send ``requests`` streamed prompts, ``concurrency`` at a time, and return percentiles over the good ones.

    A request fails when it gets no answer or another one than the golden. Times are milliseconds; ``tpot_ms`` is the
    time for each token after the first.

    :return: requests, failed_requests, reasons[], concurrency, ttft_ms{p50, p90, p99}, tpot_ms{...}, output_tokens,
        output_tokens_per_s, samples[], seconds
    """
    if requests < 1 or concurrency < 1:
        raise LlmError(
            "a load of nothing proves nothing",
            wanted="at least one request, one at a time",
            found=f"{requests} requests, {concurrency} at a time",
            remedy="raise requests and concurrency",
        )
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        turns = [prompts[number % len(prompts)] for number in range(requests)]
        samples = list(pool.map(lambda prompt: _timed(client, prompt, started), turns))
    seconds = time.monotonic() - started
    good = [sample for sample in samples if not sample["reason"]]
    paced = [sample for sample in good if sample["tokens"] > 1]
    return {
        "requests": len(samples),
        "failed_requests": len(samples) - len(good),
        "reasons": sorted({sample["reason"] for sample in samples if sample["reason"]}),
        "concurrency": concurrency,
        "ttft_ms": percentiles([sample["ttft_ms"] for sample in good]),
        "tpot_ms": percentiles([(sample["total_ms"] - sample["ttft_ms"]) / (sample["tokens"] - 1) for sample in paced]),
        "output_tokens": sum(sample["tokens"] for sample in good),
        "output_tokens_per_s": round(sum(sample["tokens"] for sample in good) / seconds, 2),
        "samples": samples,
        "seconds": round(seconds, 3),
    }


def _timed(client: ChatClient, prompt: dict, zero: float) -> dict:
    begin = time.monotonic()
    sample = {"begin_ms": round((begin - zero) * 1000, 1), "ttft_ms": 0.0, "total_ms": 0.0, "tokens": 0, "reason": ""}
    try:
        reply = client.stream(prompt["prompt"], prompt["max_tokens"])
    except REQUEST_ERRORS as error:
        return dict(sample, reason=f"no answer: {error or type(error).__name__}")
    sample.update(
        ttft_ms=round(reply["ttft_s"] * 1000, 1),
        total_ms=round(reply["seconds"] * 1000, 1),
        tokens=reply["completion_tokens"],
    )
    if not is_golden(prompt, reply["text"]):
        sample["reason"] = f"another answer than the golden one for {prompt['id']}"
    return sample


def percentiles(values: list[float]) -> dict:
    """Return {p50, p90, p99} by the nearest rank, each None when there are no values."""
    ordered = sorted(values)
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    if not ordered:
        return dict.fromkeys(ranks)
    return {
        name: round(ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))], 2)
        for name, share in ranks.items()
    }
