"""What must hold for any input: index rows, frames, and archives that are damaged anyhow."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.codec import Frame, encode, quantise
from gliomoe.data_shards.format.index import INDEX, Index, pack, write_index
from gliomoe.data_shards.identity.fingerprints import (
    FINGERPRINTS,
    ROW,
    Fingerprints,
    fingerprint_rows,
    write_fingerprints,
)
from gliomoe.data_shards.identity.signature import SIZE, unpack
from gliomoe.data_shards.intensity import robust_range
from gliomoe.data_shards.sequences import SEQUENCES

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=64)
U4, U8 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ROWS = st.builds(
    lambda key, subject, *rest: (key.encode(), subject.encode(), *rest),
    KEYS,
    KEYS,
    U4,
    U8,
    U8,
    U4,
    st.tuples(U4, U4, U4),
    st.tuples(*[st.floats(0.125, 20, width=32)] * 3),
    st.integers(0, 2 ** len(SEQUENCES) - 1),
    st.booleans(),
    st.binary(min_size=16, max_size=16).map(list),
)


@relaxed
@given(rows=st.lists(ROWS, max_size=8, unique_by=lambda row: row[0]))
def test_index_rows(tmp_path, rows):
    rows.sort(key=lambda row: row[0])
    write_index(tmp_path / INDEX, pack(rows))
    index = Index.open(tmp_path / INDEX)
    assert len(index) == len(rows)
    for i, row in enumerate(rows):
        entry, place = index.entry(i), index.place(i)
        bits = {bit for bit, name in enumerate(SEQUENCES) if name in entry.sequences}
        assert (entry.key.encode(), entry.subject.encode()) == row[:2]
        assert (place.shard, place.offset, place.length, place.crc32) == row[2:6]
        assert (entry.shape, entry.spacing) == row[6:8]
        assert sum(1 << bit for bit in bits) == row[8] and entry.has_seg is row[9]
        assert entry.fingerprint == bytes(row[10]).hex()
        assert index.position(entry.key) == i
    assert index.position("~") is None
    assert index.labelled() == sum(row[9] for row in rows)


@relaxed
@given(data=st.binary(max_size=300))
def test_a_file_that_is_no_index(tmp_path, data):
    for name, opened in ((INDEX, Index), (FINGERPRINTS, Fingerprints)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError):
            opened.open(tmp_path / name)


@relaxed
@given(
    studies=st.lists(
        st.dictionaries(
            st.sampled_from(SEQUENCES), st.binary(min_size=SIZE, max_size=SIZE), max_size=4
        ),
        max_size=5,
    )
)
def test_fingerprint_rows(tmp_path, studies):
    records = [
        {"sequences": {name: {"signature": code.hex()} for name, code in study.items()}}
        for study in studies
    ]
    rows = [np.array(list(fingerprint_rows(r, i)), dtype=ROW) for i, r in enumerate(records)]
    write_fingerprints(tmp_path / FINGERPRINTS, rows)
    prints = Fingerprints.open(tmp_path / FINGERPRINTS)
    for number, name in enumerate(SEQUENCES):
        found = [(i, study[name]) for i, study in enumerate(studies) if name in study]
        numbers, codes = prints.of_sequence(number)
        assert [*zip(numbers.tolist(), map(bytes, codes), strict=True)] == found
        nibbles = [int(c, 16) - 16 * (int(c, 16) > 7) for _, code in found for c in code.hex()]
        assert unpack(codes).ravel().tolist() == nibbles


SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=40)


@relaxed
@given(data=st.data(), dtype=st.sampled_from([np.int16, np.uint8]))
def test_any_voxels_survive_a_frame(data, dtype):
    voxels = data.draw(hnp.arrays(dtype, SHAPES))
    content = encode(voxels)
    assert encode(np.asfortranarray(voxels)) == content
    start = tuple(data.draw(st.integers(0, side)) for side in voxels.shape)
    stop = tuple(data.draw(st.integers(a, n)) for a, n in zip(start, voxels.shape, strict=True))
    frame = Frame(content)
    assert (frame.shape, frame.dtype) == (voxels.shape, dtype)
    out = np.empty([b - a for a, b in zip(start, stop, strict=True)], dtype)
    frame.read_into(out, start, stop)
    wanted = voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    np.testing.assert_array_equal(out, wanted)


WHOLE = st.integers(-(10**6), 10**6).map(float)
REAL = st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False)
FINE = st.floats(-1, 1, width=32, allow_subnormal=False)


@relaxed
@given(data=st.data(), elements=st.sampled_from([WHOLE, REAL, FINE]))
def test_quantisation_is_exact_to_half_a_step(data, elements):
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=8))
    volume = data.draw(hnp.arrays(np.float32, shape, elements=elements))
    volume[np.abs(volume) < 1e-20] = 0
    if not volume.any():
        return
    low, high = robust_range(volume)
    if not low < high:  # refused before, as a volume without contrast
        return
    stored = quantise(volume, low, high)
    back = stored.codes.astype(np.float64) * stored.scale + stored.offset
    assert np.abs(back - volume).max() <= stored.scale / 2 * (1 + 1e-3)
    assert (back[volume == 0] == 0).all()
    assert (stored.codes[volume == 0] == stored.background).all()


def archive(members):
    return b"".join(tar.member(name, content) for name, content in members) + tar.END


def walked(data):
    """Names and contents, or None where the walk refuses the archive."""
    try:
        found = tar.walk(memoryview(data), 0, len(data), "shard")
        return [(member.name, bytes(member.content)) for member in found]
    except DataError:
        return None


MEMBERS = st.lists(st.tuples(KEYS, st.binary(max_size=1500)), min_size=1, max_size=4)


@relaxed
@given(members=MEMBERS)
def test_archives_are_what_tarfile_reads(members):
    data = archive(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        assert walked(data) == [(m.name, file.extractfile(m).read()) for m in file] == members


@relaxed
@given(members=MEMBERS, data=st.data())
def test_a_damaged_archive_is_read_as_far_as_it_is_whole(members, data):
    pieces = [tar.member(name, content) for name, content in members]
    ends = np.cumsum([len(piece) for piece in pieces])
    whole = bytearray(b"".join(pieces) + tar.END)
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4))
    for place in places:
        whole[place] ^= data.draw(st.integers(1, 255))
    before = int((ends <= min(places)).sum())
    found = []
    try:
        for member in tar.walk(memoryview(whole), 0, len(whole), "shard"):
            found.append((member.name, bytes(member.content)))
    except DataError:
        assert len(found) >= before
    assert found[:before] == members[:before]


@relaxed
@given(members=MEMBERS, data=st.data())
def test_an_archive_cut_anywhere(members, data):
    whole = archive(members)
    cut = data.draw(st.integers(0, len(whole) - 1))
    found = walked(whole[:cut])
    assert found is None or found == members[: len(found)]


@relaxed
@given(data=st.binary(max_size=4000))
def test_bytes_that_are_no_archive(data):
    found = walked(data)
    assert found is None or found == [] or sum(len(c) for _, c in found) <= len(data)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, b"3"])
def test_links_and_devices_are_refused(kind):
    info = tarfile.TarInfo("case.t1.b2nd")
    info.type, info.linkname = kind, "/etc/passwd"
    assert walked(info.tobuf(tarfile.USTAR_FORMAT) + tar.END) is None


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "a/b.json"])
def test_names_that_lead_elsewhere_are_refused(name):
    assert walked(archive([(name, b"{}")])) is None
