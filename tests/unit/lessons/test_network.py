"""The network of two heads behaves like a language model that answers with a class."""

from __future__ import annotations

import torch

from forgetless.data.encoding import encode_examples
from forgetless.lessons.network import NUM_CLASSES, Network, RowTokenizer, Settings, draw_tasks, task_examples

SETTINGS = Settings(num_inputs=3, width=4, num_rows=5, num_held_out=2)


def test_rows_of_a_task_go_through_its_own_head() -> None:
    rows, _ = draw_tasks(SETTINGS, torch.Generator().manual_seed(0))
    network = Network(rows, width=4)
    ids = torch.arange(14)[:, None] + NUM_CLASSES
    logits = network(input_ids=ids).logits[:, 0]
    hidden = network.layers[0](rows.flatten(0, 1)).relu()
    torch.testing.assert_close(logits[:7], network.head_a(hidden[:7]))
    torch.testing.assert_close(logits[7:], network.head_b(hidden[7:]))


def test_classes_say_on_which_side_of_a_plane_a_row_lies() -> None:
    many = Settings(num_rows=4000, num_held_out=0)
    rows, classes = draw_tasks(many, torch.Generator().manual_seed(1))
    for task in range(2):
        mean = (rows[task] * (2 * classes[task] - 1)[:, None]).mean(0)  # points along the plane's normal
        is_right = ((rows[task] @ mean > 0).long() == classes[task]).float().mean()
        assert is_right > 0.97
    assert 0.4 < classes.float().mean() < 0.6


def test_an_example_is_a_row_and_the_class_behind_it() -> None:
    classes = torch.tensor([[1, 0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0, 0]])
    for task, origin in ((0, "general"), (1, "domain")):
        examples = task_examples(task, classes, SETTINGS)
        encoded = encode_examples(examples, RowTokenizer(), max_tokens=8)
        assert {example.origin for example in examples} == {origin}
        assert [sequence.input_ids[0] for sequence in encoded] == [NUM_CLASSES + 7 * task + row for row in range(5)]
        assert [sequence.labels for sequence in encoded] == [[-100, int(label)] for label in classes[task, :5]]
