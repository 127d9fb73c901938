"""Days are UTC days, wherever a moment was written down; ids are ordered."""

from datetime import UTC, date, datetime, timedelta, timezone

from servicekit.clock import SystemClock, SystemIds, next_utc_midnight, utc_day
from servicekit.testing.clock import CountingEntropy, ManualClock, SequentialIds


def test_the_day_is_utc_for_a_moment_of_another_zone() -> None:
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2026, 3, 1, 8, 59, tzinfo=tokyo)
    assert utc_day(moment) == date(2026, 2, 28)
    assert next_utc_midnight(moment) == datetime(2026, 3, 1, tzinfo=UTC)


def test_midnight_belongs_to_the_new_day() -> None:
    midnight = datetime(2026, 12, 31, 0, 0, tzinfo=UTC)
    assert utc_day(midnight) == date(2026, 12, 31)
    assert next_utc_midnight(midnight) == datetime(2027, 1, 1, tzinfo=UTC)


def test_minted_ids_are_version_7_unique_and_ordered() -> None:
    ids = [SystemIds().uuid7() for _ in range(1000)]
    assert {uid.version for uid in ids} == {7}
    assert sorted(set(ids)) == ids


def test_now_and_time_are_one_instant() -> None:
    clock = SystemClock()
    assert abs(clock.now().timestamp() - clock.time()) < 1
    assert clock.now().tzinfo is UTC


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock()
    before = (clock.time(), clock.monotonic())
    assert (clock.time(), clock.monotonic()) == before
    clock.advance(90)
    assert (clock.time() - before[0], clock.monotonic() - before[1]) == (90, 90)
    clock.set(datetime(2030, 1, 1, tzinfo=UTC))
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    assert clock.monotonic() - before[1] == 90


def test_fake_ids_and_entropy_do_not_repeat() -> None:
    ids, entropy = SequentialIds(), CountingEntropy()
    first, second = ids.uuid7(), ids.uuid7()
    assert first < second
    assert first.version == 7
    assert entropy.token_bytes(20) != entropy.token_bytes(20)
    assert len(entropy.token_bytes(20)) == 20
