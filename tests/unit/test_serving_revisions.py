"""Revisions and weights as KServe's Knative mode has them."""

from serving.local.revisions import Memory, goal, observe, rolled_out, wanted, weights

ONE, TWO = "s-predictor-00001", "s-predictor-00002"


def applied(memory, template):
    return observe(memory, "s", template, {"template": template})


def live(template="a"):
    return rolled_out(applied(Memory(), template), {ONE: 100}, None)


def test_the_first_revision_gets_everything_whatever_the_percent():
    memory = applied(Memory(), "a")
    assert weights(memory, 10, latest_is_ready=True) == {ONE: 100}
    assert weights(memory, 10, latest_is_ready=False) == {}


def test_a_changed_template_gets_nothing_until_it_is_ready():
    memory = applied(live(), "b")
    assert memory.created == TWO
    assert wanted(memory) == [ONE, TWO]
    assert weights(memory, None, latest_is_ready=False) == {ONE: 100}
    assert weights(memory, 10, latest_is_ready=True) == {ONE: 90, TWO: 10}
    assert weights(memory, 0, latest_is_ready=True) == {ONE: 100, TWO: 0}
    assert weights(memory, None, latest_is_ready=True) == {TWO: 100}


def test_all_traffic_makes_the_latest_the_one_rolled_out():
    memory = rolled_out(applied(live(), "b"), {TWO: 100}, None)
    assert (memory.rolledout, memory.previous) == (TWO, ONE)
    assert wanted(memory) == [TWO]
    assert list(memory.revisions) == [TWO]


def test_all_traffic_by_percent_keeps_the_one_before_up():
    memory = rolled_out(applied(live(), "b"), {TWO: 100}, 100)
    assert memory.rolledout == ONE
    assert wanted(memory) == [ONE, TWO]


def test_a_part_of_the_traffic_does_not():
    assert rolled_out(applied(live(), "b"), {ONE: 50, TWO: 50}, None).rolledout == ONE


def test_the_rolled_out_template_applied_again_is_its_revision():
    memory = applied(applied(live("a"), "b"), "a")
    assert memory.created == ONE
    assert wanted(memory) == [ONE]
    assert weights(memory, None, latest_is_ready=True) == {ONE: 100}


def test_a_percent_on_what_is_rolled_out_already_changes_nothing():
    memory = rolled_out(applied(live(), "b"), {TWO: 100}, None)
    assert goal(applied(memory, "b"), 10) == {TWO: 100}


def test_a_revision_that_was_given_up_gets_a_new_number_when_it_comes_back():
    memory = rolled_out(applied(applied(live("a"), "b"), "a"), {ONE: 100}, None)
    assert applied(memory, "b").created == "s-predictor-00003"
