import pytest

from segcontext.training.streams import next_validation


def validations(every, total):
    step, found = 0, []
    while step < total:
        step = next_validation(step, every, total)
        found.append(step)
    return found


@pytest.mark.parametrize("total", [1, 3, 9, 10, 11, 19, 25, 99, 100, 30_000, 12_345])
def test_left_to_itself_a_run_validates_ten_times(total):
    found = validations(0, total)
    assert len(found) == min(10, total)
    assert found[-1] == total
    distances = {after - before for before, after in zip([0, *found], found, strict=False)}
    assert max(distances) - min(distances) <= 1


@pytest.mark.parametrize(
    ("every", "total", "steps"), [(3, 8, [3, 6, 8]), (4, 8, [4, 8]), (100, 8, [8]), (1, 2, [1, 2])]
)
def test_else_it_validates_every_so_many_steps_and_at_its_end(every, total, steps):
    assert validations(every, total) == steps


@pytest.mark.parametrize("every", [0, 7])
def test_whether_a_step_is_validated_follows_from_the_step_before(every):
    due = [step for step in range(1, 31) if next_validation(step - 1, every, 30) == step]
    assert due == validations(every, 30)
