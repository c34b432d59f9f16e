"""A layout that was begun at another point is the one that is made at this point alone; what none exceeds."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ggufphys.graph.affine import Trace
from ggufphys.graph.allocating.alloc import SideBySide, lay_out
from ggufphys.graph.allocating.course import Course, padded_sizes
from ggufphys.graph.allocating.lifetimes import Lifetimes, Segment


@st.composite
def courses(draw: st.DrawFn) -> Course:
    """Random stretches, some empty and some the longer the larger the unknown, in segments that may come again."""
    trace = Trace((1,))
    sizes: list[int] = []

    def take() -> int:
        slope = draw(st.sampled_from((0, 0, 0, 0, 32, 320)))
        size = draw(st.integers(0, 12)) * 32
        sizes.append(trace.unknown(0, slope, size) if slope else size)
        return len(sizes) - 1

    alive = [take() for _ in range(draw(st.integers(0, 4)))]
    n_leafs = len(sizes)
    segments, order = list[Segment](), list[int]()
    last = draw(st.integers(0, 6))  # which comes once, as the last layer does
    for number in range(last + 1):
        held, first, events = tuple(alive), len(sizes), list[int]()
        again = draw(st.integers(0, 2)) if 0 < number < last else 0
        for _ in range(draw(st.integers(0, 12))):
            own = [stretch for stretch in alive if not again or stretch >= first]
            if draw(st.integers(0, 3)):  # mostly those of one size alone
                own = [stretch for stretch in own if type(sizes[stretch]) is int] or own
            if draw(st.booleans()) and own:
                stretch = draw(st.sampled_from(own))
                alive.remove(stretch)
                events.append(~stretch)
            else:
                alive.append(take())
                events.append(alive[-1])
        if again:  # it leaves what it found
            events += [~stretch for stretch in alive if stretch >= first]
            alive = [stretch for stretch in alive if stretch < first]
        segments.append(Segment(tuple(events), range(first, len(sizes)), held, (), ()))
        order += [number] * (1 + again)
    segments[0] = replace(segments[0], taken=range(n_leafs, segments[0].taken.stop))
    lifetimes = Lifetimes(tuple(segments), tuple(sizes), (), frozenset(), ())
    return Course(lifetimes, tuple(order), tuple(range(n_leafs)), ((),) * len(order))


@settings(max_examples=300, deadline=None)
@given(
    course=courses(), points=st.lists(st.integers(0, 40), min_size=2, max_size=5), alignment=st.sampled_from((32, 64))
)
def test_where_it_began_does_not_show(course: Course, points: list[int], alignment: int) -> None:
    """At each of several points, in any order, all stretches lie where they do without the points before."""
    for point in points:
        alone, begun = (lay_out(c, alignment, (point,)) for c in (replace(course, beginnings={}), course))
        assert alone.chunk_bytes == begun.chunk_bytes
        assert {*zip(alone.stretches, alone.starts, strict=True)} == {*zip(begun.stretches, begun.starts, strict=True)}


@settings(max_examples=200, deadline=None)
@given(course=courses(), points=st.lists(st.integers(0, 40), min_size=2, max_size=3), data=st.data())
def test_stretches_side_by_side(course: Course, points: list[int], data: st.DataObject) -> None:
    """What no layout exceeds is the sum of all padded sizes, and what each layer's others add, at every point."""
    lifetimes, alignment = course.lifetimes, data.draw(st.sampled_from((32, 64)))
    n_layers = max(len(lifetimes.segments) - 1, 0)
    stand_for = [data.draw(st.integers(0, 3)) for _ in range(n_layers + data.draw(st.sampled_from((0, 0, 1))))]
    bound, alone = SideBySide(lifetimes, stand_for, alignment), SideBySide(lifetimes, (), alignment)
    for point in points:
        sizes = padded_sizes(lifetimes, alignment, (point,))
        between = [sum(sizes[s.taken.start : s.taken.stop]) for s in lifetimes.segments[1:-1]]
        most = max(between, default=0)
        if len(stand_for) == len(between) + 1:
            more = sum(
                n * (own + following)
                for n, own, following in zip(stand_for, between, (*between[1:], most), strict=False)
            )
        else:
            more = 2 * sum(stand_for) * most
        assert bound.at((point,)) == sum(sizes) + more
        assert alone.at((point,)) == sum(sizes)
