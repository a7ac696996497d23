"""Text: tokenizers that a training split teaches, encoders that padding does not touch, views that know what to leave."""

import json
import subprocess
import sys

import pytest
import torch

from counterpoint.batch import View
from counterpoint.data.files import from_columns
from counterpoint.data.text import SPECIALS, Text, train_tokenizer
from counterpoint.encoders.bm25 import BM25, terms
from counterpoint.encoders.length import Length
from counterpoint.encoders.sentence_encoder import sentence_encoder
from counterpoint.encoders.text_transformer import TextTransformer
from counterpoint.errors import ComponentError, DataError
from counterpoint.randomness import Draw
from counterpoint.views.tokens import TokenCrop, TokenDelete, TokenMask, TokenRepeat, TokenSwap

torch.set_num_threads(1)
TEXTS = [f"the {animal} number {i} sat on the mat" for i, animal in enumerate(["cat", "dog", "owl", "fox"] * 10)]


def test_a_trained_tokenizer_is_a_function_of_its_texts():
    code = (
        "import sys; from counterpoint.data.text import train_tokenizer; "
        "sys.stdout.write(train_tokenizer('bpe', [f'the {a} number {i} sat on the mat' for i, a in enumerate(['cat', 'dog', 'owl', 'fox'] * 10)], 300))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert train_tokenizer("bpe", TEXTS, 300) == elsewhere
    assert json.loads(elsewhere)["model"]["vocab"]["<pad>"] == 0


@pytest.mark.parametrize("text", ["the cat", "Ünïcödé 心 \U0001f600", "tab\tand\nline", "x" * 50])
def test_byte_pairs_hold_every_text(text):
    reader = Text(tokenizer="bpe", vocabulary=300)
    reader.fit(TEXTS)
    from counterpoint.data.text import loaded

    ids = reader.read(text)
    assert loaded(reader.json).decode(ids.tolist()).strip() == text.strip()
    facts = reader.given()
    assert ids[0] == 1 and ids[-1] == 2 and ids.max() < facts["vocabulary"] <= 300
    assert facts["special_tokens"] == list(range(len(SPECIALS))) and facts["mask_token"] == SPECIALS.index("<mask>")


def test_characters_are_tokens():
    reader = Text(tokenizer="characters", max_tokens=None)
    reader.fit(["abc", "a b\n", "é心"])
    from counterpoint.data.text import loaded

    ids = reader.read("cab é心\n")
    assert len(ids) == 7 and loaded(reader.json).decode(ids.tolist()) == "cab é心\n"
    assert reader.given()["vocabulary"] == len(SPECIALS) + 7
    assert reader.read("axa").tolist()[1] == SPECIALS.index("<unk>")
    few = Text(tokenizer="characters", vocabulary=261)
    few.fit(["".join(map(chr, range(200, 600)))])
    assert few.given()["vocabulary"] == 261


def test_the_vocabulary_is_learnt_from_the_training_split_alone():
    texts = ["aaa bbb"] * 8 + ["zzzz qqqq"] * 8
    splits = ["train"] * 8 + ["test"] * 8
    data = {s: from_columns(cells={"text": texts}, readers={"text": Text(tokenizer="bpe", vocabulary=300)}, splits=splits, split=s) for s in ("train", "test")}  # fmt: skip
    assert (
        data["train"].assets()
        == data["test"].assets()
        == {"text.tokenizer.json": train_tokenizer("bpe", texts[:8], 300)}
    )
    assert len(data["train"][0].inputs["text"]) == 4 and len(data["test"][0].inputs["text"]) > 8
    assert data["test"][0].fields == {"text": "zzzz qqqq"}


def test_long_texts_are_cut_and_empty_ones_refused():
    assert len(Text(max_tokens=5).read("abcdefgh")) == 5 and len(Text(max_tokens=None).read("a" * 600)) == 600
    reader = Text(tokenizer="bpe", vocabulary=300, max_tokens=6)
    reader.fit(TEXTS)
    ids = reader.read("the cat number 3 sat on the mat and the dog")
    assert len(ids) == 6 and ids[-1] == 2
    with pytest.raises(ValueError, match="holds no text"):
        reader.read(" \n")
    with pytest.raises(DataError, match="'nonesuch' is neither bytes, characters, bpe, minilm nor the path"):
        Text(tokenizer="nonesuch")
    with pytest.raises(ComponentError, match="vocabulary is at least 261; got 100"):
        Text(tokenizer="bpe", vocabulary=100)


def test_a_tokenizer_from_a_file(tmp_path):
    (tmp_path / "tokenizer.json").write_text(train_tokenizer("bpe", TEXTS, 300))
    learnt = Text(tokenizer="bpe", vocabulary=300)
    learnt.fit(TEXTS)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert torch.equal(Text(tokenizer=str(path)).read("the owl"), learnt.read("the owl"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ComponentError, match=r"not a tokenizer\.json"):
        Text(tokenizer=str(tmp_path)).given()


# ---- encoders ----


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pool", ["mean", "first"])
@pytest.mark.parametrize("kind", ["text_transformer", "sentence_encoder"])
def test_padding_and_the_batch_do_not_touch_a_text(kind, pool, bert):
    torch.manual_seed(0)
    scratch = TextTransformer(vocabulary=300, width=16, depth=2, heads=2, pool=pool)
    encoder = (scratch if kind == "text_transformer" else sentence_encoder(model=bert, pool=pool)).eval()
    data, mask = torch.zeros(3, 20, dtype=torch.long), torch.zeros(3, 20, dtype=torch.bool)
    for row, length in enumerate((20, 7, 1)):
        data[row, :length] = torch.randint(5, 300, (length,))
        mask[row, :length] = True
    together = encoder(data, mask)
    assert together.h.shape == (3, encoder.width) and together.tokens.shape == (3, 20, encoder.width)
    for row in range(3):
        alone = encoder(data[row : row + 1, mask[row]])
        torch.testing.assert_close(together.h[row : row + 1], alone.h, atol=1e-5, rtol=1e-5)


def test_every_parameter_of_a_text_encoder_learns(bert):
    for encoder in (
        TextTransformer(vocabulary=300, width=16, depth=1, heads=2, max_tokens=8),
        sentence_encoder(model=bert),
    ):
        encoder(torch.randint(0, 300, (4, 8))).h.square().sum().backward()
        assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_pretrained_weights_are_those_of_the_folder(bert):
    torch.manual_seed(1)
    weight = lambda **options: sentence_encoder(model=bert, **options).network.embeddings.word_embeddings.weight  # noqa: E731
    assert torch.equal(weight(), weight()) and not torch.equal(weight(), weight(pretrained=False))


def test_a_frozen_encoder_remembers_texts_and_forgets_when_it_learns(bert):
    plain, encoder = sentence_encoder(model=bert).eval(), sentence_encoder(model=bert, remember=True).eval()
    encoder.load_state_dict(plain.state_dict())
    data, mask = torch.randint(5, 300, (4, 9)), torch.arange(9) < torch.tensor([9, 3, 5, 9])[:, None]
    data[3] = data[0]
    encoder.requires_grad_(False)
    torch.testing.assert_close(encoder(data, mask).h, plain(data, mask).h, atol=1e-5, rtol=1e-5)
    assert len(encoder.known) == 3 and encoder(data, mask).tokens is None
    assert torch.equal(encoder(data[1:2, :3]).h[0], encoder(data, mask).h[1])  # whatever else is in the batch
    encoder.requires_grad_(True)
    encoder.network.embeddings.word_embeddings.weight.data.mul_(2)
    assert not torch.allclose(encoder(data, mask).h, plain(data, mask).h, atol=1e-3)
    assert encoder(data, mask).h.requires_grad
    encoder.requires_grad_(False).load_state_dict(plain.state_dict())
    torch.testing.assert_close(encoder(data, mask).h, plain(data, mask).h, atol=1e-5, rtol=1e-5)


def test_a_folder_without_a_model_is_said(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ComponentError, match="holds no model of transformers"):
        sentence_encoder(model=str(tmp_path))
    with pytest.raises(DataError, match="neither minilm nor the path of a file or folder"):
        sentence_encoder(model="bert-base-uncased")


# ---- views ----


STEPS = [TokenMask(mask_token=4, special_tokens=[0, 1, 2, 3, 4]), TokenDelete(special_tokens=[0, 1, 2, 3, 4]), TokenCrop(special_tokens=[0, 1, 2, 3, 4]), TokenRepeat(special_tokens=[0, 1, 2, 3, 4])]  # fmt: skip


def texts(lengths: list[int]) -> View:
    generator = torch.Generator().manual_seed(0)
    data = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(data, dtype=torch.bool)
    for row, length in enumerate(lengths):
        data[row, :length] = torch.randint(5, 300, (length,), generator=generator)
        data[row, 0], data[row, length - 1], mask[row, :length] = 1, 2, True
    return View("text", data, torch.arange(len(lengths)), mask)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_view_of_a_text_does_not_depend_on_its_batch(step):
    view = texts([70, 12, 5, 3, 40])
    before = view.data.clone()
    together = step(view, Draw(3, torch.arange(5)))
    assert torch.equal(view.data, before)
    for row in range(5):
        length = int(view.mask[row].sum())
        alone = step(View("text", view.data[row : row + 1, :length], torch.zeros(1), view.mask[row : row + 1, :length]), Draw(3, torch.tensor([row])))  # fmt: skip
        mine = together.data[row][together.mask[row]]
        assert torch.equal(mine, alone.data[0][alone.mask[0]])
        assert mine[0] == 1 and mine[-1] == 2 and (together.data[row][~together.mask[row]] == 0).all()
        assert len(mine) >= 3 or length < 3


def test_token_views_do_what_they_say():
    view, draw = texts([200] * 40), Draw(0, torch.arange(40))
    masked = TokenMask(fraction=0.3, mask_token=4, special_tokens=[0, 1, 2, 3, 4])(view, draw).data
    assert 0.25 < float((masked == 4).float().mean()) < 0.35 and torch.equal(
        masked[masked != 4], view.data[masked != 4]
    )
    deleted = TokenDelete(fraction=0.3, special_tokens=[0, 1, 2])(view, Draw(0, torch.arange(40)))
    assert 130 < float(deleted.mask.sum(1).float().mean()) < 150
    for row in range(40):  # what is left is in its order
        kept, source = deleted.data[row][deleted.mask[row]].tolist(), iter(view.data[row].tolist())
        assert all(token in source for token in kept)
    cropped = TokenCrop(low=0.2, high=0.5, special_tokens=[0, 1, 2])(view, Draw(0, torch.arange(40)))
    inside = cropped.mask.sum(1) - 2
    assert inside.min() >= 39 and inside.max() <= 100 and len(inside.unique()) > 10
    for row in range(40):  # one stretch
        kept = cropped.data[row][cropped.mask[row]].tolist()[1:-1]
        whole = view.data[row].tolist()
        assert any(whole[i : i + len(kept)] == kept for i in range(200))


def test_repeated_tokens_stand_beside_themselves():
    view, special = texts([52, 12, 5, 3, 2, 40] * 50), [0, 1, 2]
    view.data[:, 1:-1] += torch.arange(view.data.shape[1] - 2) * 300  # no token occurs twice
    view = view.replace(data=torch.where(view.data % 300 < 3, view.data % 300, view.data))
    for step, highest in (
        (TokenRepeat(fraction=0.32, special_tokens=special), [16, 3, 2, 1, 0, 12]),
        (TokenRepeat(fraction=0.32, most=10, special_tokens=special), [9, 2, 0, 0, 0, 9]),
        (TokenRepeat(fraction=0.32, max_tokens=45, special_tokens=special), [0, 3, 2, 1, 0, 5]),
        (TokenRepeat(fraction=0.0, most=10, special_tokens=special), [0] * 6),
    ):
        made = step(view, Draw(0, torch.arange(300)))
        added = made.mask.sum(1) - view.mask.sum(1)
        assert added.view(50, 6).amax(0).tolist() == highest and added.min() == 0
        for row in range(300):
            new, old = made.data[row][made.mask[row]].tolist(), view.data[row][view.mask[row]].tolist()
            assert [t for i, t in enumerate(new) if i == 0 or t != new[i - 1]] == old  # once or twice, in order
            assert max(map(new.count, old)) <= 2 and new.count(1) <= 1 >= new.count(2)


def test_every_number_of_repetitions_and_every_token_comes_up():
    view = texts([30] * 2000)
    view.data[:] = torch.arange(30) + 10
    view.data[:, 0], view.data[:, -1] = 1, 2
    made = TokenRepeat(fraction=0.3, special_tokens=[0, 1, 2])(view, Draw(5, torch.arange(2000)))
    count = torch.bincount(made.mask.sum(1) - 30, minlength=9)
    assert len(count) == 9 and count.min() > 150 and count.max() < 300
    twice = torch.bincount(made.data[made.mask], minlength=40)[11:39] - 2000
    assert twice.min() > 200 and twice.max() < 380 and twice.sum() == (count * torch.arange(9)).sum()


# ---- baselines ----


def test_bm25_ranks_as_its_formula_does():
    documents = ["def parse_header(text): return text.split(':')", "def read_file(path): return open(path).read()", "class HTTPServer: pass", "parse parse parse the header of the http file now and then and again"]  # fmt: skip
    queries = ["parse a header", "read the file", "http server", "unknownword"]
    document, query = BM25(role="document"), BM25(role="query")
    document.observe(documents)
    found = torch.nn.functional.normalize(query(queries)) @ torch.nn.functional.normalize(document(documents)).T
    mean = sum(len(terms(d)) for d in documents) / 4
    for i, q in enumerate(queries):
        plain = []
        for d in documents:
            score = 0.0
            for t in terms(q):
                n, f = sum(t in terms(x) for x in documents), terms(d).count(t)
                idf = torch.log(torch.tensor(1 + (4 - n + 0.5) / (n + 0.5))).item()
                score += idf * f * 2.2 / (f + 1.2 * (1 - 0.75 + 0.75 * len(terms(d)) / mean)) if f else 0.0
            plain.append(score)
        norm = torch.tensor(query([q])[0].norm().item() * BM25.NORM)
        torch.testing.assert_close(found[i] * norm, torch.tensor(plain), atol=2e-3, rtol=1e-3)
    assert terms("parseHTTPHeader_v2 = été") == ["parse", "http", "header", "v", "2", "été"]


def test_the_length_baseline_ranks_by_closeness():
    lengths = torch.randint(5, 100, (200,), generator=torch.Generator().manual_seed(0))
    sound, text = torch.arange(8000) < (lengths * 80)[:, None], torch.arange(100) < lengths[:, None]
    duration, count = Length(), Length()
    for part in range(0, 200, 50):
        duration.observe(sound[part : part + 50], sound[part : part + 50])
    count.observe(text, text)
    found = (duration(sound, sound) @ count(text, text).T).argmax(1)
    assert torch.equal(lengths[found], lengths)
    assert torch.allclose(duration(sound, sound).norm(dim=1), torch.ones(200, dtype=torch.float64))
    assert duration(torch.ones(2, 1, 9), None).isfinite().all() and not list(duration.parameters())


def test_a_swap_gives_a_negative_that_differs_in_two_places():
    data = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 8, 9, 2], [1, 8, 8, 8, 2], [1, 5, 2, 0, 0]])
    view = View("text", data, torch.tensor([0, 1, 2, 4]), data > 0, meta={"part": torch.arange(4)})
    step = TokenSwap(special_tokens=[0, 1, 2])
    kept, negative = step(view, Draw(3, torch.arange(4)))
    assert kept is view and negative.role == "negative" and step.layout(["raw"]) == ["raw", "negative"]
    assert negative.row.tolist() == [0, 1] == negative.meta["part"].tolist()
    changed = negative.data != data[:2]
    assert changed.sum(1).tolist() == [2, 2] and not changed[:, [0, 4]].any()
    assert torch.equal(negative.data.sort(1).values, data[:2].sort(1).values)
    assert step(negative, Draw(4, torch.arange(2))) is negative
    alone = step(view[torch.tensor([1])], Draw(3, torch.tensor([1])))[1]
    assert torch.equal(alone.data, negative.data[1:])
