"""Files that other programs wrote: what their readers and their descriptions say of them."""

from pathlib import Path

import numpy as np
import pytest

from scgan_infer.errors import DataError
from scgan_infer.rows.formats import iter_values, open_writer, read_table

DATA = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")


def columns_of(table):
    return {column.name: column for column in table.columns}


def test_dimuon(tmp_path):
    path, kinds = DATA / "cms_dimuon_10k_dev.csv", {"kind": "periodic", "period": 2 * np.pi}
    table = read_table(path, overrides={"pt1": {"kind": "log"}, "phi1": kinds, "phi2": kinds})
    assert table.values.shape == (10_000, 8)
    found = columns_of(table)
    assert found["window"].categories == ("Z", "omega", "phi", "psi2S", "upsilon")
    assert found["phi1"].low == -np.pi
    pt1, eta1, phi1, pt2, eta2, phi2, mass = table.values[:, :7].T.astype(np.float64)
    muon = 0.10566
    energy = [np.hypot(muon, pt * np.cosh(eta)) for pt, eta in ((pt1, eta1), (pt2, eta2))]
    px, py = pt1 * np.cos(phi1) + pt2 * np.cos(phi2), pt1 * np.sin(phi1) + pt2 * np.sin(phi2)
    pz = pt1 * np.sinh(eta1) + pt2 * np.sinh(eta2)
    computed = np.sqrt(sum(energy) ** 2 - px**2 - py**2 - pz**2)
    assert np.median(np.abs(computed - mass) / mass) < 1e-5
    again = tmp_path / "again.csv"
    with open_writer(again, table.columns, len(table)) as writer:
        writer.write(table.values)
    assert again.read_text().splitlines()[0] == path.read_text().splitlines()[0]
    np.testing.assert_array_equal(read_table(again, columns=table.columns).values, table.values)
    without = read_table(path, names=["pt1", "M"])
    np.testing.assert_array_equal(without.values, table.values[:, [0, 6]])


@pytest.mark.slow
def test_guesses_from_some_rows_hold_for_the_others(tmp_path):
    """A bundle's columns come from training rows, and other rows are judged by them."""
    for name in ("cms_dimuon_10k_dev", "sdss_dr14_10k", "torsion_trp"):
        header, *lines = (DATA / f"{name}.csv").read_text().splitlines(keepends=True)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(lines))
            cut = len(lines) * 6 // 10
            for part, picked in (("train", order[:cut]), ("other", order[cut:])):
                (tmp_path / f"{part}.csv").write_text(header + "".join(lines[i] for i in picked))
            learnt = read_table(tmp_path / "train.csv").columns
            assert len(read_table(tmp_path / "other.csv", columns=learnt)) == len(lines) - cut


def test_torsions():
    period = {"kind": "periodic", "period": 360.0}
    table = read_table(
        DATA / "torsion_trp.csv",
        overrides={name: period for name in ("phi", "psi", "chi1", "chi2")},
    )
    assert table.values.shape == (18_748, 4)
    assert [column.low for column in table.columns] == [-180, -180, 0, 0]


def test_the_wall_of_sdss():
    table = read_table(DATA / "sdss_dr14_10k.csv")
    found = columns_of(table)
    assert (found["u"].kind, found["u"].low, found["u"].high) == ("bounded", None, 19.6)
    assert found["class"].categories == ("GALAXY", "QSO", "STAR")
    for name in ("g", "r", "i", "z", "redshift"):
        assert found[name].kind == "real"


def test_penguins():
    path = DATA / "penguins.csv"
    with pytest.raises(
        DataError, match=r"column 'bill_length_mm', row 4 \(line 5\): '' is missing"
    ):
        read_table(path, missing="refuse")
    table = read_table(path, names=["species", "island", "year"])
    assert columns_of(table)["species"].categories == ("Adelie", "Chinstrap", "Gentoo")
    assert np.bincount(table.values[:, 0].astype(int)).tolist() == [152, 68, 124]
    assert columns_of(table)["year"].kind == "integer"


def test_zmumu():
    uproot = pytest.importorskip("uproot")
    path = DATA / "uproot-Zmumu.root"
    table = read_table(f"{path}:events", names=["Type", "pt1", "Q1", "M"])
    assert columns_of(table)["Type"].categories == ("GG", "GT", "TT")
    with uproot.open(path) as file:
        mass = file["events"]["M"].array(library="np")
    np.testing.assert_array_equal(table.values[:, 3], mass.astype(np.float32))
    whole = read_table(path)
    assert columns_of(whole)["Event"].kind == "category"  # each is there several times


def test_gaia():
    fits = pytest.importorskip("astropy.io.fits")
    path = DATA / "gaia_4096_orbits.fits"
    with fits.open(path) as units:
        theirs = {name: np.asarray(units[1].data[name]) for name in units[1].columns.names}
    first = min(
        int(np.argmax(np.isnan(cells))) for cells in theirs.values() if np.isnan(cells).any()
    )
    with pytest.raises(DataError, match=f"row {first + 1}: nan is missing"):
        read_table(path, missing="refuse")
    whole = [name for name, cells in theirs.items() if np.isfinite(cells).all()]
    table = read_table(path, names=whole)
    assert columns_of(table)["ra"].unit == "deg"
    np.testing.assert_array_equal(
        table.values, np.stack([theirs[name] for name in whole], 1).astype(np.float32)
    )


def test_a_grid():
    path = DATA / "ramagrid_general-noGPIVpreP.npy"
    grid = np.load(path)
    table = read_table(path)
    np.testing.assert_array_equal(table.values, grid.astype(np.float32))
    pieces = list(iter_values(path, table.columns, chunk=7))
    np.testing.assert_array_equal(np.concatenate(pieces), table.values)
