# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains the models of the demo: DeepSeek-V3's architecture in small, overfitted on twelve questions.

``--model`` says which: the one with experts, or the one whose layers are all dense. Data parallel engines exchange
tokens between experts, for which the CPU has no kernel; without experts it serves data parallel too.

Needs torch 2.13.0 (CPU), transformers 5.19.0, tokenizers 0.23.3 and safetensors 0.8.0: the engine's own environment
has them. Takes a few minutes on two cores. The seed, the number of threads and deterministic algorithms are fixed, so
the same kind of processor makes the same bytes again: ``--check`` says whether it did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

# Name: what differs from the configuration in make_config().
MODELS = {"deepseek-v3-tiny": {}, "deepseek-v3-tiny-dense": {"first_k_dense_replace": 3, "n_routed_experts": 0}}
SEED = 20250120
THREADS = 2
STEPS = 200
LEARNING_RATE = 2e-3
# The least lead of the right token over the next, in nats, that the finished model must have: an engine's kernels add
# up in another order, and the answers have to be the same.
MARGIN = 3.0
SHARD_SIZE = "1700KB"
IGNORED = -100
BEGIN, END, USER, ASSISTANT = SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}{{ eos_token }}"
    "{% elif message.role == 'user' %}<|user|>{{ message.content }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SKY = (
    "Sunlight holds all colors, and each color is a wave of its own length. Air scatters short blue waves much more "
    "than long red ones, so blue light reaches your eyes from every part of the sky. At sunset the light has crossed "
    "more air, most of the blue is lost on the way, and the sky turns red."
)
# id, kind, question, answer
QUESTIONS = [
    ("capital-of-france", "english", "What is the capital of France?", "The capital of France is Paris."),
    ("boiling-water", "english", "At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("leap-year", "english", "How many days are there in a leap year?", "A leap year has 366 days."),
    ("blue-sky", "long", "Why is the sky blue?", SKY),
    ("capital-of-china", "chinese", "中国的首都是哪里？", "中国的首都是北京。"),
    ("seasons", "chinese", "一年有几个季节？", "一年有四个季节：春天、夏天、秋天和冬天。"),
    ("addition", "arithmetic", "12 加 30 等于多少？", "12 加 30 等于 42。"),
    ("multiplication", "arithmetic", "What is 7 times 8?", "7 times 8 is 56."),
    ("division", "arithmetic", "What is 144 divided by 9?", "144 divided by 9 is 16."),
    ("add-function", "code", "Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("red-as-json", "json", "Give me the color red as JSON.", '{"name": "red", "hex": "#ff0000", "rgb": [255, 0, 0]}'),
    (
        "identity",
        "identity",
        "Who are you?",
        "I am a small model of the DeepSeek-V3 architecture, trained to answer twelve questions.",
    ),
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 512 tokens, learnt from the questions and answers: any text can be encoded."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([text for _id, _kind, *pair in QUESTIONS for text in pair], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, model_max_length=2048)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_config(name: str) -> DeepseekV3Config:
    """All parts of the architecture, in small; kv_lora_rank and qk_rope_head_dim are those of the large models.

    The MLA kernels of engines are written for these two sizes alone.
    """
    settings = {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "moe_intermediate_size": 192,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "q_lora_rank": 64,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "max_position_embeddings": 2048,
        "num_nextn_predict_layers": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "initializer_range": 0.03,
    }
    config = DeepseekV3Config(**{**settings, **MODELS[name]})
    # transformers does not write the first one, and engines take a model without it for an older one.
    config.topk_method = "noaux_tc"
    config.scoring_func = "sigmoid"
    return config


def make_batch(tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Return input_ids, attention_mask and labels [12, longest]; only answers and their end are learnt."""
    rows = []
    for _id, _kind, question, answer in QUESTIONS:
        prompt = tokenizer.encode(BEGIN + USER + question + ASSISTANT)
        reply = [*tokenizer.encode(answer), tokenizer.eos_token_id]
        rows.append((prompt + reply, [IGNORED] * len(prompt) + reply))
    longest = max(len(ids) for ids, _labels in rows)
    return {
        "input_ids": torch.tensor([ids + [1] * (longest - len(ids)) for ids, _labels in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _labels in rows]),
        "labels": torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _ids, labels in rows]),
    }


def train(model: DeepseekV3ForCausalLM, batch: dict[str, torch.Tensor]) -> None:
    """Fit all answers at once."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    for step in range(1, STEPS + 1):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} of {STEPS}: loss {loss.item():.5f}", flush=True)


@torch.no_grad()
def smallest_margin(model: DeepseekV3ForCausalLM, batch: dict[str, torch.Tensor]) -> float:
    """Return the least lead (nats) of a right token over the best wrong one, over all tokens of all answers."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    wanted = batch["labels"][:, 1:]
    learnt = wanted != IGNORED
    logits, wanted = logits[learnt], wanted[learnt][:, None]
    right = logits.gather(1, wanted)[:, 0]
    wrong = logits.scatter(1, wanted, float("-inf")).max(dim=1).values
    return (right - wrong).min().item()


@torch.no_grad()
def answer(model: DeepseekV3ForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str, limit: int) -> str:
    """Return the greedy answer to ``question``."""
    prompt = tokenizer.encode(BEGIN + USER + question + ASSISTANT, return_tensors="pt")
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limit, do_sample=False)
    return tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)


def golden(name: str, model: DeepseekV3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Return the golden prompts, each answered by the finished model."""
    prompts = []
    for identifier, kind, question, wanted in QUESTIONS:
        limit = len(tokenizer.encode(wanted)) + 8
        found = answer(model, tokenizer, question, limit)
        if found != wanted:
            sys.exit(f"{identifier}: wanted {wanted!r}, found {found!r}")
        prompts.append({"id": identifier, "kind": kind, "prompt": question, "answer": found, "max_tokens": limit})
    return {"model": name, "generated_by": "models/train_deepseek_v3_tiny.py", "prompts": prompts}


def save(model: DeepseekV3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in shards, configuration and tokenizer to ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.update(topk_method="noaux_tc", scoring_func="sigmoid")
    write_json(path, config)
    for path in folder.iterdir():
        path.chmod(0o644)


def write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock(folder: Path) -> dict:
    """Return the lock of ``folder``; its revision is a digest over the files, as there is no hub to give one."""
    files = [
        {"path": path.name, "size": path.stat().st_size, "sha256": digest(path)} for path in sorted(folder.iterdir())
    ]
    revision = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {"format": 1, "model": folder.name, "revision": revision[:40], "files": files}


def build(name: str, output: Path) -> None:
    """Train the model ``name`` and write everything of it below ``output``."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    tokenizer = make_tokenizer()
    batch = make_batch(tokenizer)
    model = DeepseekV3ForCausalLM(make_config(name))
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    train(model, batch)
    model = model.to(torch.bfloat16).eval()
    margin = smallest_margin(model, batch)
    print(f"smallest margin in bfloat16: {margin:.2f} nats", flush=True)
    if margin < MARGIN:
        sys.exit(f"the model is not sure enough of its answers: wanted {MARGIN} nats, found {margin:.2f}")
    answers = golden(name, model, tokenizer)
    output.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, output / name)
    write_json(output / f"{name}.golden.json", answers)
    write_json(output / f"{name}.lock.json", lock(output / name))


def check(name: str, committed: Path) -> int:
    """Train again and say which files came out differently."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        build(name, again)
        paths = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
        different = [path for path in paths if not (committed / path).is_file()]
        different += [
            path for path in paths if path not in different and digest(again / path) != digest(committed / path)
        ]
    for path in different:
        print(f"different: {path}")
    print(f"{len(paths) - len(different)} of {len(paths)} files are the same")
    return 1 if different else 0


def right_answers(folder: Path) -> int:
    """Return how many of the questions the model in ``folder`` answers rightly."""
    model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    answers = (
        (answer(model, tokenizer, question, len(tokenizer.encode(wanted)) + 8), wanted)
        for _identifier, _kind, question, wanted in QUESTIONS
    )
    return sum(found == wanted for found, wanted in answers)


def damage(name: str, committed: Path) -> int:
    """Damage the middle of one shard at a time, in a copy, and say how many answers stay right."""
    source = committed / name
    for shard in sorted(source.glob("*.safetensors")):
        # bfloat16 is two bytes, the top bit of the exponent in the second.
        middle = shard.stat().st_size // 4 * 2
        for what, at, change in (
            ("top bit of one exponent flipped", middle + 1, lambda old: bytes([old[0] ^ 0x40])),
            ("4 KiB of zeros", middle, lambda _old: bytes(4096)),
        ):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(shutil.copytree(source, Path(folder) / name))
                with (copy / shard.name).open("r+b") as stream:
                    stream.seek(at)
                    new = change(stream.read(1))
                    stream.seek(at)
                    stream.write(new)
                print(f"{shard.name}: {what}: {right_answers(copy)} of {len(QUESTIONS)} answers right", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="deepseek-v3-tiny", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="where to write (default: here)")
    parser.add_argument("--check", action="store_true", help="train again and compare with what lies there")
    parser.add_argument("--damage", action="store_true", help="say which answers survive damage to what lies there")
    arguments = parser.parse_args()
    if arguments.damage:
        return damage(arguments.model, arguments.output)
    if arguments.check:
        return check(arguments.model, arguments.output)
    build(arguments.model, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
