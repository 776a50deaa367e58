"""Who takes long goes one at a time."""

import asyncio

from latticed.agents.turnstile import Turnstile


async def test_between_two_that_pass_others_get_their_turn() -> None:
    turnstile, order = Turnstile(), []

    async def heavy(number: int) -> None:
        await turnstile.pass_()
        order.append(number)

    async def other() -> None:
        for _ in range(12):
            order.append(-1)
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop

    await asyncio.gather(*(heavy(number) for number in range(5)), other())
    assert [number for number in order if number >= 0] == [0, 1, 2, 3, 4]
    assert "0, 1" not in str(order), order


async def test_who_leaves_the_line_holds_up_nobody() -> None:
    turnstile = Turnstile()
    waiting = [asyncio.ensure_future(turnstile.pass_()) for _ in range(4)]
    await asyncio.sleep(0)  # noqa: TID251 - until they stand in line
    waiting[1].cancel()
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert waiting[3].exception() is None
    await turnstile.pass_()
