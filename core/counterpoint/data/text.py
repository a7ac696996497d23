"""The reader of text: a table's cells, or .txt files, as token ids.

Dimensions: L tokens. Id 0 is padding whatever the tokenizer.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from counterpoint.data.guard import MAX_BYTES, check_file, reading
from counterpoint.data.reader import Reader
from counterpoint.data.sources import MINILM, MODELS, Source, model_folder, sources_of_model
from counterpoint.errors import ComponentError, CounterpointError

BYTE_OFFSET = 3  # ids 0, 1, 2 are padding, end of text and unknown, as in ByT5
BYTE_VOCABULARY = 256 + BYTE_OFFSET
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")  # of a tokenizer that is trained, in the order of their ids


class Text(Reader):
    """Text as int64 (L,) token ids: a cell is the text itself, or the name of a .txt file.

    tokenizer   bytes: the ids of ByT5 (Xue et al., 2022, section 3.1) without end marker, no vocabulary to learn.
                characters: those of the training split. bpe: a byte-level byte-pair encoding (Radford et al., 2019,
                section 2.2) learnt from it. minilm: the one of `sentence_encoder`. Else the path of a tokenizer.json, or
                of the folder of a model that has one
    vocabulary  most entries that are learnt
    max_tokens  tokens that are kept of a text, markers included; None: all

    The data says `vocabulary`, `mask_token` (an id that stands for what is hidden) and `special_tokens` (ids that are
    no part of a text). Raises DataError for a file that is not UTF-8, and for a text without a visible character.
    """

    suffixes = (".txt",)
    sources = (MINILM,)

    @staticmethod
    def sources_of(*, tokenizer: str, **_) -> tuple[Source, ...]:
        """What these parameters need of `sources`."""
        return sources_of_model(tokenizer)

    def __init__(self, *, tokenizer: str = "bytes", vocabulary: int = 4096, max_tokens: int | None = 512):
        if max_tokens is not None and max_tokens < 3:
            raise ComponentError(f"reader 'text': max_tokens is at least 3, or null; got {max_tokens}")
        if vocabulary < 256 + len(SPECIALS):
            raise ComponentError(f"reader 'text': vocabulary is at least {256 + len(SPECIALS)}; got {vocabulary}")
        self.kind, self.size, self.max_tokens = tokenizer, vocabulary, max_tokens
        fixed = tokenizer not in ("bytes", *LEARNT)
        self.json = read_tokenizer(tokenizer) if fixed else None

    def is_file(self, cell: str) -> bool:
        return cell.lower().endswith(".txt") and "\n" not in cell

    def fit(self, cells: Sequence[str]) -> None:
        if self.kind in LEARNT:
            self.json = train_tokenizer(self.kind, [self.text(cell) for cell in cells], self.size)

    def given(self) -> dict[str, Any]:
        if self.json is None:
            special, size = list(range(BYTE_OFFSET)), BYTE_VOCABULARY
            return self._facts(size, BYTE_OFFSET - 1, special)
        tokenizer = loaded(self.json)
        special = sorted(tokenizer.get_added_tokens_decoder())
        hidden = next((tokenizer.token_to_id(t) for t in ("<mask>", "[MASK]", "<unk>") if tokenizer.token_to_id(t)), 0)
        size = tokenizer.get_vocab_size()  # specials included
        return self._facts(size, hidden, special)

    def _facts(self, vocabulary: int, mask_token: int, special: list[int]) -> dict[str, Any]:
        marks = {"mask_token": mask_token, "special_tokens": special}
        return {"vocabulary": vocabulary, "length": None, **marks, "tokenizer": self.kind}

    def text(self, cell: str) -> str:
        return read_text(cell) if self.is_file(cell) else cell

    def read(self, cell: str) -> Tensor:
        return self.ids(self.text(cell))

    def ids(self, text: str) -> Tensor:
        """int64 (L,): the tokens of a text."""
        if not text.strip():
            raise ValueError("holds no text")
        if self.json is None:
            return text_ids(text)[: self.max_tokens]
        ids = loaded(self.json, self.max_tokens).encode(text).ids
        return torch.tensor(ids, dtype=torch.int64)

    def assets(self) -> dict[str, str]:
        return {} if self.json is None or self.kind in MODELS else {"tokenizer.json": self.json}


def read_text(path: Path | str, *, max_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a file; a byte order mark is left out."""
    check_file(path, max_bytes=max_bytes)
    with reading(path):
        text = Path(path).read_text(encoding="utf-8-sig")
        if not text.strip():
            raise ValueError("holds no text")
        return text


def text_ids(text: str) -> Tensor:
    """int64 (L,): the UTF-8 bytes of a text + 3."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + BYTE_OFFSET


def read_tokenizer(name: str) -> str:
    """The text of a tokenizer.json: of `minilm`, of a folder, or of the file itself."""
    path = model_folder(name, "reader 'text': tokenizer", ("bytes", *LEARNT))
    path = path / "tokenizer.json" if path.is_dir() else path
    check_file(path)
    return path.read_text(encoding="utf-8")


def train_tokenizer(kind: Literal["characters", "bpe"], texts: Sequence[str], vocabulary: int) -> str:
    """A tokenizer of at most `vocabulary` entries learnt from `texts`, as the text of a tokenizer.json."""
    digest = hashlib.sha256(f"{kind} {vocabulary}".encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    key = digest.hexdigest()
    if key not in _trained:
        while len(_trained) >= KEPT:
            del _trained[next(iter(_trained))]
        _trained[key] = LEARNT[kind](texts, vocabulary)
    return _trained[key]


KEPT = 8  # learnt tokenizers that are remembered: the splits of a data set share theirs
_trained: dict[str, str] = {}


def _bpe(texts: Sequence[str], vocabulary: int) -> str:
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = library.normalizers.NFC()
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    marks = [(name, SPECIALS.index(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = library.processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    return tokenizer.to_str()


def _characters(texts: Sequence[str], vocabulary: int) -> str:
    library = _library()
    count = Counter(character for text in texts for character in unicodedata.normalize("NFC", text))
    most = sorted(count, key=lambda character: (-count[character], character))[: vocabulary - len(SPECIALS)]
    ids = {name: i for i, name in enumerate((*SPECIALS, *sorted(most)))}
    tokenizer = library.Tokenizer(library.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = library.normalizers.NFC()
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = library.decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer.to_str()


LEARNT = {"characters": _characters, "bpe": _bpe}


@lru_cache(maxsize=8)
def loaded(json: str, max_tokens: int | None = None):
    """The `tokenizers.Tokenizer` of a tokenizer.json, cutting texts at `max_tokens`, without padding."""
    try:
        tokenizer = _library().Tokenizer.from_str(json)
    except CounterpointError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise ComponentError(f"reader 'text': not a tokenizer.json ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _library():
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and the loader's processes do not mix
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.processors
        import tokenizers.trainers
    except ImportError as error:
        raise CounterpointError(
            "this tokenizer needs the package tokenizers: pip install 'counterpoint[text]'"
        ) from error
    return tokenizers
