"""Properties of every view by token type, then what each promises.

Vocabulary of the tests: 0 padding, 1 start, 2 end, 3 unknown, 4 mask, 5 to 9 the names of the types, then 50 tokens of
each type in turn.
"""

import pytest
import torch

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint_code_search.readers.token_types import TYPES, type_of, vocabulary_types
from counterpoint_code_search.views.by_type import SoftAugmentation, TypeMask, TypeReplace

MASK, SPECIAL, NAMES = 4, [0, 1, 2, 3, 4], [3, 5, 6, 7, 8, 9]
TABLE = [0] * 10 + [1 + i % 5 for i in range(250)]
DIGITS = "".join(map(str, TABLE))
KNOWN = {"token_types": DIGITS, "special_tokens": SPECIAL}
EVERY = {
    "mask": TypeMask(fraction=0.5, mask_token=MASK, **KNOWN),
    "mask_one": TypeMask(fraction=0.5, types=["operator"], mask_token=MASK, **KNOWN),
    "replace": TypeReplace(fraction=0.5, type_tokens=NAMES, **KNOWN),
    "replace_one": TypeReplace(fraction=0.5, types=["keyword", "literal"], type_tokens=NAMES, **KNOWN),
    "soft": SoftAugmentation(fraction=0.5, mask_token=MASK, type_tokens=NAMES, **KNOWN),
}
every = pytest.mark.parametrize("name", EVERY)


def tokens(n: int = 8, length: int = 40) -> torch.Tensor:
    data = torch.randint(10, len(TABLE), (n, length), generator=torch.Generator().manual_seed(0))
    data[:, 0], data[:, -1] = 1, 2
    return data


def seen(name, data, ids=None, mask=None, seed: int = 3) -> torch.Tensor:
    ids = torch.arange(len(data)) + 100 if ids is None else torch.as_tensor(ids)
    return EVERY[name](View("code", data, torch.arange(len(data)), mask), Draw(seed, ids)).data


@every
def test_shape_dtype_and_input_are_kept(name):
    data = tokens()
    before = data.clone()
    out = seen(name, data)
    assert out.shape == data.shape and out.dtype == torch.int64 and not torch.equal(out, data)
    assert torch.equal(data, before)


@every
def test_a_row_is_the_same_alone_and_in_any_batch(name):
    data, ids = tokens(), torch.arange(8) * 7
    whole = seen(name, data, ids)
    assert torch.equal(seen(name, data[2:3], ids[2:3])[0], whole[2])
    assert torch.equal(seen(name, data.flip(0), ids.flip(0)).flip(0), whole)


@every
def test_padding_changes_nothing_and_is_never_touched(name):
    short = tokens(1, 25)
    padded = torch.cat([short, torch.zeros(1, 15, dtype=torch.int64)], 1)
    mask = torch.arange(40)[None] < 25
    out = seen(name, padded, ids=[5], mask=mask)
    assert torch.equal(out[:, :25], seen(name, short, ids=[5])) and (out[:, 25:] == 0).all()
    filled = torch.where(mask, padded, 60)  # padding is what the mask says, whatever its ids
    assert (seen(name, filled, ids=[5], mask=mask)[:, 25:] == 60).all()


@every
def test_special_tokens_are_never_touched(name):
    data = torch.tensor(SPECIAL).repeat(50, 8)
    assert torch.equal(seen(name, data), data)


@every
def test_every_sample_draws_for_itself_and_a_seed_repeats(name):
    data = tokens(1).expand(64, -1)
    assert len({tuple(row.tolist()) for row in seen(name, data)}) > 5
    assert torch.equal(seen(name, data, seed=1), seen(name, data, seed=1))
    assert not torch.equal(seen(name, data, seed=1), seen(name, data, seed=2))
    assert torch.equal(*seen(name, data[:2], ids=[9, 9]))


@every
def test_no_rows_give_no_rows(name):
    assert seen(name, tokens()[:0]).shape == (0, 40)


@every
def test_an_evaluation_sees_the_code_as_it_is(name):
    view = View("code", tokens(), torch.arange(8))
    assert torch.equal(EVERY[name].prepare(view).data, view.data)


def changed_types(name, n: int = 400):
    """For each row, the types of its changed tokens, and the changed and new ids."""
    data = tokens(n)
    out = seen(name, data)
    hit = out != data
    return [{TABLE[i] for i in data[r][hit[r]].tolist()} for r in range(n)], data[hit], out[hit]


def test_masking_by_type_masks_one_type_a_sample():
    types, _, new = changed_types("mask")
    assert (new == MASK).all() and all(len(one) <= 1 for one in types)
    assert set().union(*types) == {1, 2, 3, 4, 5}
    types, _, new = changed_types("mask_one")
    assert set().union(*types) == {TYPES.index("operator")} and (new == MASK).all()


def test_replacement_puts_the_name_of_the_type():
    for name, wanted in (
        ("replace", {1, 2, 3, 4, 5}),
        ("replace_one", {TYPES.index("keyword"), TYPES.index("literal")}),
    ):
        types, old, new = changed_types(name)
        assert [NAMES[TABLE[i]] for i in old.tolist()] == new.tolist() and set().union(*types) == wanted
    assert all(len(one) <= 1 for one in types)


def test_soft_augmentation_takes_each_of_the_four_ways():
    data = tokens(800, 60)
    out = seen("soft", data)
    hit = out != data
    masked = [(out[r][hit[r]] == MASK).all().item() for r in range(800)]
    several = [len({TABLE[i] for i in data[r][hit[r]].tolist()}) > 1 for r in range(800)]
    assert all((out[r][hit[r]] == MASK).all() or (out[r][hit[r]] != MASK).all() for r in range(800))
    for way in ((True, True), (True, False), (False, True), (False, False)):
        assert 0.18 < sum(pair == way for pair in zip(masked, several)) / 800 < 0.32, way


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_the_fraction_is_that_of_the_chosen_type(fraction):
    view = TypeMask(fraction=fraction, types=["keyword"], mask_token=MASK, **KNOWN)
    data = tokens(400)
    out = view(View("code", data, torch.arange(400)), Draw(0, torch.arange(400))).data
    keyword = torch.tensor(TABLE)[data] == TYPES.index("keyword")
    assert abs((out != data)[keyword].float().mean() - fraction) < 0.03


def test_p_leaves_samples_as_they_are():
    data = tokens(400)
    view = TypeMask(fraction=0.9, types=["keyword"], p=0.25, mask_token=MASK, **KNOWN)
    out = view(View("code", data, torch.arange(400)), Draw(0, torch.arange(400))).data
    assert 0.18 < (out != data).any(1).float().mean() < 0.32


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TypeMask(types=["keywords"], mask_token=4, token_types=DIGITS), "did you mean 'keyword'"),
        (lambda: TypeMask(types=[], mask_token=4, token_types=DIGITS), "types is empty"),
        (lambda: TypeReplace(fraction=1.0, type_tokens=NAMES, token_types=DIGITS), "fraction must be in"),
        (lambda: SoftAugmentation(mask_token=4, type_tokens=NAMES, token_types="019"), "digit from 0 to 5"),
        (lambda: TypeMask(types=["other"], mask_token=4, token_types=DIGITS), "no token type"),
    ],
)
def test_a_mistake_is_refused_when_the_view_is_built(make, message):
    with pytest.raises(ComponentError, match=message):
        make()


@pytest.mark.parametrize(
    "text, whole, name",
    [
        ("def", True, "keyword"),
        ("def", False, "identifier"),
        ("none", True, "keyword"),  # an uncased tokenizer's None
        ("_private", True, "identifier"),
        ("é", True, "identifier"),
        ("42", True, "literal"),
        ('"', True, "literal"),
        ("==", True, "operator"),
        ("):", True, "separator"),
        ("  ", True, "other"),
    ],
)
def test_the_type_of_a_token(text, whole, name):
    from counterpoint_code_search.readers.token_types import keywords_of

    assert TYPES[type_of(text, whole, keywords_of("python"))] == name


def test_a_trained_tokenizer_has_a_type_for_every_token():
    from counterpoint.data.text import loaded, train_tokenizer

    tokenizer = loaded(train_tokenizer("bpe", ["def walk(tree):\n    return tree + 1\n"] * 20, 300))
    digits = vocabulary_types(tokenizer, "python")
    assert len(digits) == tokenizer.get_vocab_size()
    encoding = tokenizer.encode("return tree + 1", add_special_tokens=False)
    told = {tokenizer.decode([i]).strip(): TYPES[int(digits[i])] for i in encoding.ids}
    assert told["return"] == "keyword" and told["+"] == "operator" and told["1"] == "literal"
    assert all(digits[i] == "0" for i in tokenizer.get_added_tokens_decoder())
