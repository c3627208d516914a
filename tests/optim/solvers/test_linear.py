import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from zoo.errors import Interrupted
from zoo.optim.solvers import FeatureRows, Head, choose_l2, make_folds, make_prototypes, solve_head

pytestmark = pytest.mark.numbers
PLAIN = torch.eye(4, dtype=torch.float64)


def make_features(count=120, width=30, spread=1.0, seed=0):
    """Four classes of clustered features whose columns have other means and scales each."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    centres = torch.randn(4, width, generator=random)
    features = centres[labels] + spread * torch.randn(count, width, generator=random)
    return (features * torch.logspace(-2, 2, width) + torch.linspace(-50, 50, width)).float(), labels


def standardise(rows, features):
    return ((features.double() - rows.mean) / rows.scale).numpy()


@pytest.mark.parametrize(("count", "width"), [(120, 30), (40, 90)], ids=["more rows", "more columns"])
def test_the_objective_is_that_of_scikit_learn(count, width):
    features, labels = make_features(count, width, spread=3.0)
    rows, l2 = FeatureRows.of(features, labels), 0.02
    found = solve_head(rows, PLAIN, l2)
    theirs = LogisticRegression(C=1 / (count * l2), tol=1e-10, max_iter=10_000)
    theirs.fit(standardise(rows, features), labels.numpy())
    log_p = theirs.predict_log_proba(standardise(rows, features))[np.arange(count), labels.numpy()]
    expected = -log_p.mean() + l2 / 2 * (theirs.coef_**2).sum()
    assert found.objective == pytest.approx(expected, abs=1e-8)
    assert found.gradient <= 1e-6
    logits = found.head(features)
    own = torch.nn.functional.cross_entropy(logits, labels)
    assert float(own) == pytest.approx(found.cost, rel=1e-6), "the standardisation is folded into the head"


def test_rows_beside_fixed_ones_are_the_best_there_are():
    features, labels = make_features(spread=3.0)
    rows, l2 = FeatureRows.of(features, labels), 0.02
    whole = solve_head(rows, PLAIN, l2, tolerance=1e-9).head
    fixed = whole(features)[:, :2]
    found = solve_head(rows, PLAIN, l2, fixed=fixed, tolerance=1e-9)
    torch.testing.assert_close(found.head.weight * rows.scale, whole.weight[2:] * rows.scale, atol=1e-6, rtol=1e-4)
    logits = torch.cat([fixed, found.head(features)], 1)
    assert found.cost == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-9)
    choice = choose_l2(rows, PLAIN, make_folds(labels, 5), fixed=fixed, path=(l2,))
    assert torch.equal(choice.logits[:, :2], fixed.float())
    assert choice.path[0].accuracy == (choice.logits.argmax(1) == labels).double().mean()
    assert choice.start[1].shape == (2,)
    again = solve_head(rows, PLAIN, l2, fixed=fixed, start=choice.start)
    torch.testing.assert_close(again.head.weight * rows.scale, found.head.weight * rows.scale, atol=1e-4, rtol=1e-3)


def test_weights_of_classes_and_label_smoothing_are_those_of_torch():
    features, labels = make_features(spread=3.0)
    rows, weight, smoothing = FeatureRows.of(features, labels), torch.tensor([1.0, 2.0, 0.5, 0.5]).double(), 0.1
    costs = (1 - smoothing) * torch.diag(weight) + smoothing / 4 * weight.expand(4, 4)
    found = solve_head(rows, costs / weight[labels].mean(), 0.05)
    layer = nn.Linear(30, 4).double()
    standard = torch.from_numpy(standardise(rows, features))
    with torch.no_grad():
        layer.weight.copy_(found.head.weight * rows.scale)
        layer.bias.copy_(found.head.bias + found.head.weight @ rows.mean)
    loss = nn.functional.cross_entropy(layer(standard), labels, weight=weight, label_smoothing=smoothing)
    (loss + 0.025 * layer.weight.square().sum()).backward()
    assert float(loss.detach()) == pytest.approx(found.cost, rel=1e-9)
    assert layer.weight.grad.norm() < 1e-5
    assert layer.bias.grad.norm() < 1e-5


def test_rows_that_are_read_anew_in_every_pass_give_the_same_head(monkeypatch):
    monkeypatch.setattr("zoo.optim.solvers.rows.PIECE_BYTES", 4_000)
    features, labels = make_features()
    reads = []

    def read(start, stop):
        reads.append(stop - start)
        return features[start:stop]

    held, streamed = FeatureRows.of(features, labels), FeatureRows(read, labels, hold=0)
    ours, theirs = solve_head(held, PLAIN, 0.1), solve_head(streamed, PLAIN, 0.1)
    torch.testing.assert_close(ours.head.weight, theirs.head.weight)
    assert len(reads) > 100
    assert max(reads) <= 4_000 // 4 // 30


def test_the_penalty_is_the_strongest_within_a_standard_error_of_the_best():
    features, labels = make_features(spread=6.0)
    rows, folds = FeatureRows.of(features, labels), make_folds(labels, 5)
    choice = choose_l2(rows, PLAIN, folds)
    best = min(choice.path, key=lambda point: point.cost)
    within = [point.l2 for point in choice.path if point.cost <= best.cost + best.error]
    assert len(choice.path) >= 20
    assert choice.l2 == max(within)
    assert best.l2 < choice.path[0].l2, "the strongest of all is not the best here"
    by_hand = torch.empty(len(labels), 4).double()
    for fold in range(5):
        held = folds == fold
        model = LogisticRegression(C=1 / (int((~held).sum()) * choice.l2), tol=1e-8, max_iter=10_000)
        standard = standardise(rows, features)
        model.fit(standard[~held], labels[~held].numpy())
        by_hand[held] = torch.from_numpy(model.predict_log_proba(standard[held]))
    torch.testing.assert_close(choice.logits.double().softmax(1), by_hand.exp(), atol=2e-2, rtol=0)
    again = choose_l2(rows, PLAIN, folds)
    assert torch.equal(again.logits, choice.logits)


def test_folds_hold_every_class_alike():
    labels = torch.tensor([0] * 11 + [1] * 4 + [2] * 3)
    folds = make_folds(labels, 3, seed=1)
    counts = torch.stack([labels[folds == fold].bincount(minlength=3) for fold in range(3)])
    assert (counts.max(0).values - counts.min(0).values).max() <= 1
    assert counts.sum(1).tolist() == [6, 6, 6]
    assert not torch.equal(folds, make_folds(labels, 3, seed=2))


def test_prototypes_name_the_class_with_the_nearest_mean_by_cosine():
    features, labels = make_features(24, 50, spread=2.0)
    rows = FeatureRows.of(features, labels)
    head, _ = make_prototypes(rows, 4)
    units = nn.functional.normalize(torch.from_numpy(standardise(rows, features)))
    means = nn.functional.normalize(torch.stack([units[labels == number].mean(0) for number in range(4)]))
    assert torch.equal(head(features).argmax(1), (units @ means.T).argmax(1))
    single = FeatureRows.of(features[:4], labels[:4])
    assert make_prototypes(single, 4)[1] == 10.0


def test_it_stops_when_it_is_asked_to():
    features, labels = make_features()
    with pytest.raises(Interrupted):
        solve_head(FeatureRows.of(features, labels), PLAIN, 0.1, is_stopping=lambda: True)


def test_a_constant_column_is_no_reason_to_fail():
    features, labels = make_features()
    features[:, 3] = 7.0
    head = solve_head(FeatureRows.of(features, labels), PLAIN, 0.1).head
    assert isinstance(head, Head)
    assert bool(head.weight.isfinite().all())
