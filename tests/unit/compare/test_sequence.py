import numpy as np
import pytest

from forgetless.compare.sequence import general_forgetting, score_matrix, sequence_metrics

R = [[0.8, 0.2, 0.1], [0.9, 0.7, 0.3], [0.5, 0.6, 0.9]]
BASE = [0.3, 0.1, 0.2]


def test_known_answers() -> None:
    metrics = sequence_metrics(R, base=BASE)
    assert metrics.average_accuracy == pytest.approx((0.5 + 0.6 + 0.9) / 3)
    assert metrics.backward_transfer == pytest.approx(((0.5 - 0.8) + (0.6 - 0.7)) / 2)
    assert metrics.forward_transfer == pytest.approx(((0.2 - 0.1) + (0.3 - 0.2)) / 2)
    assert metrics.forgetting == pytest.approx(((0.9 - 0.5) + (0.7 - 0.6)) / 2)
    assert metrics.matrix[1] == (0.9, 0.7, 0.3)


def test_the_base_counts_as_a_best_score() -> None:
    assert sequence_metrics(R, base=[0.95, 0.1, 0.2]).forgetting == pytest.approx(((0.95 - 0.5) + 0.1) / 2)


def test_forgetting_is_negative_when_later_phases_help() -> None:
    assert sequence_metrics([[0.5, 0.1], [0.8, 0.9]]).forgetting == pytest.approx(-0.3)


def test_one_phase_has_no_transfer() -> None:
    metrics = sequence_metrics([[0.7]], base=[0.2])
    assert metrics.average_accuracy == 0.7
    assert metrics.backward_transfer is metrics.forward_transfer is metrics.forgetting is None


def test_without_the_base_there_is_no_forward_transfer() -> None:
    assert sequence_metrics(R).forward_transfer is None


def test_scores_before_a_tasks_own_phase_may_be_missing() -> None:
    matrix = score_matrix([{"a": 0.8}, {"a": 0.6, "b": 0.9}], tasks=["a", "b"])
    metrics = sequence_metrics(matrix, base=[0.1, 0.1])
    assert metrics.backward_transfer == pytest.approx(-0.2)
    assert metrics.forward_transfer is None


def test_scores_after_a_tasks_own_phase_may_not() -> None:
    matrix = score_matrix([{"a": 0.8}, {"b": 0.9}], tasks=["a", "b"])
    with pytest.raises(ValueError, match="last row"):
        sequence_metrics(matrix)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one row per phase"):
        sequence_metrics([[0.1, 0.2]])
    with pytest.raises(ValueError, match="one score for each"):
        sequence_metrics(R, base=[0.1])
    with pytest.raises(ValueError, match="2 tasks"):
        score_matrix([{"a": 0.1}], tasks=["a", "b"])


def test_general_forgetting_is_positive_for_a_loss() -> None:
    np.testing.assert_allclose(general_forgetting([0.5, 0.4], [[0.4, 0.4], [0.3, 0.5]]), [[0.1, 0.0], [0.2, -0.1]])


def test_a_lone_earlier_phase_may_skip_later_tasks() -> None:
    assert sequence_metrics([[0.8, np.nan], [0.6, 0.9]]).forgetting == pytest.approx(0.2)


def test_signs_against_the_definitions_of_other_libraries() -> None:
    """Avalanche reports first - last, mammoth the maximum over all phases - last, which is never negative."""
    for seed in range(20):
        matrix = np.random.default_rng(seed).random((3, 3))
        metrics = sequence_metrics(matrix)
        avalanche = np.mean([matrix[j, j] - matrix[-1, j] for j in range(2)])
        mammoth = np.mean([matrix[:, j].max() - matrix[-1, j] for j in range(2)])
        ours = [matrix[:2, j].max() - matrix[-1, j] for j in range(2)]
        assert metrics.backward_transfer == pytest.approx(-avalanche)
        assert metrics.forgetting == pytest.approx(np.mean(ours))
        assert np.mean(np.maximum(ours, 0.0)) == pytest.approx(mammoth)
        assert metrics.average_accuracy == pytest.approx(matrix[-1].mean())
