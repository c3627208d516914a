import pytest
import torch
from torch.nn import functional

from zoo.errors import InputError
from zoo.settings.preset import Preset
from zoo.tasks.classification.data import Data
from zoo.tasks.classification.multi_label import MULTI
from zoo.tasks.classification.multi_label.images import MultiLabelImages
from zoo.tasks.classification.multi_label.loss import check_loss, make_loss, weigh_labels
from zoo.tasks.classification.multi_label.metrics import compute_scores
from zoo.tasks.classification.multi_label.thresholds import choose_thresholds

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.3], [-3.0, 4.0], [1.0, -2.0]])
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])


def of_labels(*numbers):
    images = MultiLabelImages(None, ("",) * len(numbers), tuple(numbers), tuple(range(len(numbers))), count=2)
    return Data(images, None, None, ("cat", "dog"), "nowhere", kind=MULTI)


def lose(logits=LOGITS, data=None, **options):
    data = data or of_labels((0,), (1,), (1,), (0, 1))
    return make_loss(data, Preset(labels="multi", **options), torch.nn.Identity(), None)(logits, TARGETS)


def test_the_loss_is_the_sum_over_labels():
    plain = functional.binary_cross_entropy_with_logits(LOGITS, TARGETS, reduction="sum") / 4
    assert lose() == pytest.approx(float(plain))
    soft = TARGETS * 0.9 + 0.05
    smoothed = functional.binary_cross_entropy_with_logits(LOGITS, soft, reduction="sum") / 4
    assert lose(label_smoothing=0.1) == pytest.approx(float(smoothed))


def test_focal_and_asymmetric_losses_are_those_of_the_papers():
    p = LOGITS.double().sigmoid()
    focal = -(TARGETS * (1 - p) ** 2 * p.log() + (1 - TARGETS) * p**2 * (1 - p).log())
    assert lose(focal_gamma=2.0) == pytest.approx(float(focal.sum() / 4), rel=1e-5)
    q = (p - 0.05).clamp_min(0)
    asymmetric = -(TARGETS * (1 - p) * p.log() + (1 - TARGETS) * q**4 * (1 - q).log())
    assert lose(multi_label_loss="asymmetric") == pytest.approx(float(asymmetric.sum() / 4), rel=1e-5)
    logits = torch.tensor([[300.0, -300.0]] * 4, requires_grad=True)
    lose(logits, multi_label_loss="asymmetric").backward()
    assert logits.grad.isfinite().all()


def test_rare_labels_weigh_more():
    data = of_labels((0,), (0,), (0, 1), ())
    weights = weigh_labels(data, Preset(class_weights="balanced"))
    assert weights == {"cat": 1 / 3, "dog": 3}
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, TARGETS, pos_weight=torch.tensor([1 / 3, 3.0]), reduction="sum"
    )
    assert lose(data=data, class_weights="balanced") == pytest.approx(float(expected) / 4)
    assert weigh_labels(data, Preset(class_weights={"dog": 2.0})) == {"cat": 1.0, "dog": 2.0}
    with pytest.raises(InputError, match="'dog' has none"):
        weigh_labels(of_labels((0,), ()), Preset(class_weights="effective"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "balanced"}, "sampler is balanced, but labels is multi"),
        ({"mixup_alpha": 0.2}, "mixup_alpha is not possible"),
        ({"multi_label_loss": "asymmetric", "focal_gamma": 2.0}, "focal_gamma has no meaning"),
        (
            {"multi_label_loss": "asymmetric", "label_smoothing": 0.1},
            "label_smoothing with multi_label_loss",
        ),
        ({"focal_gamma": 2.0, "label_smoothing": 0.1}, "label_smoothing with focal_gamma"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        check_loss(Preset(labels="multi", **options), None)


def test_scores_are_those_of_the_definitions():
    found = compute_scores(LOGITS, TARGETS, ("cat", "dog"), (0.7, 0.5))
    # cat: 2.0 and 1.0 lead; dog: 4.0 and 0.3 lead
    assert [label.ap for label in found.labels] == [1.0, 1.0]
    assert [(label.images, label.named, label.right) for label in found.labels] == [(2, 2, 2), (2, 2, 2)]
    found = compute_scores(LOGITS, 1 - TARGETS, ("cat", "dog"), (0.5, 0.5))
    assert found.labels[0].ap == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert found.map == found.score == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert (found.labels[0].named, found.labels[0].right) == (3, 1)
    assert found.micro_f1 == pytest.approx(2 * 1 / (3 + 2 + 2 + 2))
    assert found.cooccurrence == ((1, 2), (2, 0))
    assert found.loss == pytest.approx(
        float(functional.binary_cross_entropy_with_logits(LOGITS, 1 - TARGETS, reduction="sum")) / 4
    )


def test_average_precision_sees_only_the_order():
    large = compute_scores(1000 * LOGITS + 50, TARGETS, ("cat", "dog"), (0.5, 0.5))
    assert large.map == 1.0
    ties = compute_scores(torch.zeros(4, 2), TARGETS, ("cat", "dog"), (0.5, 0.5))
    assert ties.map == pytest.approx(0.5)


def test_outputs_that_are_no_numbers_name_nothing():
    logits = LOGITS.clone()
    logits[0] = torch.nan
    found = compute_scores(logits, TARGETS, ("cat", "dog"), (0.5, 0.5))
    assert (found.unanswered, found.labels[0].named) == (1, 2)
    assert "1 of 4 images gave NaN" in str(found)


def test_thresholds_are_where_f1_is_best():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4000, 3, generator=generator) < torch.tensor([0.1, 0.5, 0.001])
    values = (torch.randn(4000, 3, generator=generator) + 2 * truth - 3).sigmoid()  # much too low
    thresholds = choose_thresholds(values, truth)
    fresh = torch.rand(4000, 3, generator=generator) < torch.tensor([0.1, 0.5, 0.001])
    unseen = (torch.randn(4000, 3, generator=generator) + 2 * fresh - 3).sigmoid()
    scores = [compute_scores(unseen.logit(), fresh, ("a", "b", "c"), of) for of in (thresholds, [0.5] * 3)]
    assert thresholds[2] == 0.5  # too few images
    assert scores[0].micro_f1 > scores[1].micro_f1 + 0.1
    separate = torch.where(truth, 0.9, 0.2)
    assert choose_thresholds(separate, truth)[0] == 0.5  # nothing is better than 0.5
