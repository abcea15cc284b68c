"""The fair queue."""

from slm_runtime.scheduler.waiting import FairQueue


def take(queue):
    name, item = queue.peek()
    assert queue.pop(name) == item
    return name, item


def test_within_a_client_first_come_first_served():
    queue = FairQueue()
    for item in range(5):
        queue.push("a", item)
    assert [take(queue)[1] for _ in range(5)] == list(range(5))
    assert queue.peek() is None


def test_each_client_gets_the_same_number_of_tokens():
    queue, served = FairQueue(), {"small": 0, "large": 0}
    for item in range(300):
        queue.push("small", item)
        queue.push("large", item)
    for _ in range(200):
        name, _ = take(queue)
        tokens = 10 if name == "small" else 90
        queue.charge(name, tokens)
        queue.finish(name)
        served[name] += tokens
    assert abs(served["small"] - served["large"]) <= 90


def test_absence_earns_no_credit():
    queue = FairQueue()
    for item in range(10):
        queue.push("busy", item)
    for _ in range(5):
        name, _ = take(queue)
        queue.charge(name, 1000)
    for item in range(10):
        queue.push("new", item)
    order = []
    for _ in range(8):
        name, _ = take(queue)
        queue.charge(name, 1000)
        order.append(name)
    assert order.count("new") == 4


def test_what_was_put_back_is_next_of_its_client():
    queue = FairQueue()
    for item in range(3):
        queue.push("a", item)
    _, item = take(queue)
    queue.push_front("a", item)
    assert [take(queue)[1] for _ in range(3)] == [0, 1, 2]
    assert len(queue) == 0


def test_names_leave_no_trace():
    queue = FairQueue()
    for number in range(1000):
        name = f"client {number}"
        queue.push(name, number)
        if number % 2:
            take(queue)
            queue.finish(name)
        else:
            assert queue.remove(lambda item, number=number: item == number) == [number]
    assert len(queue) == 0
    assert not queue._clients


def test_requests_of_a_client_take_turns():
    queue = FairQueue()
    for item in range(1000):
        queue.push("a", f"many {item}", "many")
    for item in range(3):
        queue.push("a", f"one {item}", item)
    taken = [take(queue)[1] for _ in range(6)]
    assert taken == ["many 0", "one 0", "one 1", "one 2", "many 1", "many 2"]
    queue.push("a", "late", "late")
    queue.push_front("a", "many 2", "many")
    assert [take(queue)[1] for _ in range(3)] == ["many 2", "late", "many 3"]
    assert len(queue.remove(lambda item: item.startswith("many"))) == 996
    assert len(queue) == 0
