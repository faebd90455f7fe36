"""Where bodies wait: in memory they behave as in a file, and show nothing of the body before."""

import hashlib
import io
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_image.bodies import HASH_BYTES, WRITE_BYTES, Bodies, Memory

SIZE = 64
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("read"), st.integers(0, 30)),
        st.tuples(st.just("read all"), st.none()),
        st.tuples(st.just("view"), st.integers(1, 30)),
        st.tuples(st.just("seek"), st.tuples(st.integers(-SIZE, SIZE), st.sampled_from([0, 1, 2]))),
    ),
    max_size=12,
)


def used_memory() -> mmap.mmap:
    """With what somebody else left in it."""
    memory = mmap.mmap(-1, SIZE)
    memory.write(b"\xee" * SIZE)
    return memory


@given(STEPS)
def test_in_memory_as_in_a_file(steps: list[tuple[str, object]]) -> None:
    found, wanted = Memory(used_memory()), io.BytesIO()
    for step, value in steps:
        if step == "write" and isinstance(value, bytes):
            if wanted.tell() > len(wanted.getvalue()):
                with pytest.raises(ValueError, match="no holes"):
                    found.write(value)
            elif wanted.tell() + len(value) <= SIZE:
                assert found.write(value) == wanted.write(value)
        elif step == "read" and isinstance(value, int):
            assert found.read(value) == wanted.read(value)
        elif step == "read all":
            assert found.read() == wanted.read()
        elif step == "view" and isinstance(value, int):
            assert bytes(found.view(value)) == wanted.read(value)
        elif step == "seek" and isinstance(value, tuple):
            offset, whence = value
            start = (0, wanted.tell(), len(wanted.getvalue()))[whence]
            wanted.seek(max(0, start + offset))
            found.seek(offset, whence)
        assert found.tell() == wanted.tell()


def test_more_than_its_memory_is_refused() -> None:
    memory = Memory(used_memory())
    memory.write(b"x" * SIZE)
    with pytest.raises(ValueError, match="found 65 bytes for 64 bytes of memory"):
        memory.write(b"x")


@pytest.mark.parametrize("in_memory", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 1000, WRITE_BYTES + 1, HASH_BYTES, 2 * HASH_BYTES + 1])
async def test_all_of_it_is_there_and_hashed(in_memory: int, size: int) -> None:
    bodies, content = Bodies(in_memory, 3 * HASH_BYTES), memoryview(bytes(range(251)) * (size // 251 + 1))[:size]
    # Twice: the second one finds what the first one left.
    for body in (memoryview(b"\xee" * 3 * HASH_BYTES), content):
        with bodies.body() as room:
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                await room.add([piece[:10], piece[10:]])
            assert await room.finish() == hashlib.sha256(body).hexdigest()
            room.file.seek(0)
            assert room.file.read() == body


def test_those_for_whom_there_is_no_memory_get_a_file() -> None:
    bodies = Bodies(1, SIZE)
    with bodies.body() as first:
        with bodies.body() as second:
            assert isinstance(first.file, Memory) and not isinstance(second.file, Memory)
        with bodies.body() as third:
            assert not isinstance(third.file, Memory)
    with bodies.body() as again:
        assert isinstance(again.file, Memory)


def test_memory_is_given_back_also_after_a_failure() -> None:
    bodies = Bodies(1, SIZE)
    with pytest.raises(RuntimeError), bodies.body():
        raise RuntimeError
    with bodies.body() as body:
        assert isinstance(body.file, Memory)
