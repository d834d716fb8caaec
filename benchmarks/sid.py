"""Quantizers of semantic IDs against faiss and k-means-constrained, and at a million items.

Vectors: Beauty's texts by LSA, 384 dimensions (12,101 items), from the folder that ITEMIC_SHARED names; for the large
catalogue clustered random ones, made block by block into a memory map. Both sides run on one thread in one process and
are timed in process CPU seconds, but for the large catalogue, which runs on all cores in a process of its own and is
timed by the clock. ``reassign`` is tried on three real catalogues. faiss runs its residual quantizer with one beam and
its k-means per level with its 25 iterations; k-means-constrained runs once, with one start, as ours does. Needs the
extra ``bench``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Row, in_subprocess, main, median_alternating, peak_rss, shared_data

Table = np.ndarray
SIZES = (256, 256, 256)
LARGE_SIZES = (1024, 1024, 1024)
BLOCK = 50_000
CATALOGUES = {
    "scientific": ("scientific", "letter"),
    "beauty": ("beauty", "onerec-think"),
    "industrial": ("minionerec", "minionerec"),
}
DIMS = 384


def measure(quick: bool) -> list[Row]:
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    x = beauty_vectors()
    rows = collisions(("scientific",) if quick else tuple(CATALOGUES))
    rows += against_faiss(x, 1 if quick else 5)
    rows += against_constrained(x[:2000] if quick else x, (32,) if quick else SIZES)
    return rows + large(10_000 if quick else 100_000, 30_000 if quick else 1_000_000, quick)


def collisions(names: tuple[str, ...]) -> list[Row]:
    """What is left of them under ``reassign``, and what it costs, on real catalogues."""
    import itemic

    rows = []
    for name in names:
        folder, form = CATALOGUES[name]
        index = itemic.build_index(itemic.read(form, shared_data() / folder), levels=SIZES)
        left, kept = index.collisions.collided, 1 - index.origin["collisions"]["changed_above"] / len(index)
        rows += [
            Row(
                f"{name}, {len(index):,} items, 3 × 256, reassign: items that collide",
                left,
                None,
                "",
                None,
                "0",
                left == 0,
            ),
            Row(
                "  items that keep all codes but the last", kept, None, "share", None, "≥ .995", kept >= 0.995
            ),
        ]
    return rows


def beauty_vectors() -> Table:
    import itemic
    from itemic.sid.encoders import ENCODERS

    dataset = itemic.read("onerec-think", shared_data() / "beauty")
    return ENCODERS["lsa"](dims=DIMS).fit_transform(dataset.items)


def against_faiss(x: Table, repeats: int) -> list[Row]:
    """Time and error of residual k-means, against both of faiss's ways to it."""
    rows = []
    for name, peer in (("residual quantizer", faiss_residual), ("k-means per level", faiss_kmeans)):
        errors: dict[str, float] = {}

        def ours(errors: dict[str, float] = errors) -> None:
            errors["ours"] = our_error("rqkmeans", x, SIZES)

        def theirs(errors: dict[str, float] = errors, peer: Callable[[Table], float] = peer) -> None:
            errors["peer"] = peer(x)

        seconds = median_alternating(ours, theirs, repeats)
        rows.append(
            compare(f"rqkmeans, {len(x):,} × {DIMS}, 3 × 256; faiss {name}: time", *seconds, "s", 1.0)
        )
        rows.append(compare("  relative error", errors["ours"], errors["peer"], "", 1.0))
    return rows


def against_constrained(x: Table, sizes: tuple[int, ...]) -> list[Row]:
    """Time, error and sizes of balanced residual k-means."""
    from itemic.sid.quantizers import QUANTIZERS

    quantizer = QUANTIZERS["balanced"](device="cpu")
    ours, codes = seconds(lambda: quantizer.fit(x, sizes)[0])
    theirs, error = seconds(lambda: constrained_error(x, sizes))
    counts = [np.bincount(code, minlength=size) for code, size in zip(codes.T, sizes, strict=True)]
    off = sum(
        int(((count < len(x) // k) | (count > -(-len(x) // k))).sum())
        for count, k in zip(counts, sizes, strict=True)
    )
    name = f"balanced, {len(x):,} × {DIMS}, {' × '.join(map(str, sizes))}; k-means-constrained: time"
    ratio = theirs / ours
    whole = sizes == SIZES  # the peer's time grows much faster with the sizes than ours
    return [
        Row(name, ours, theirs, "s", ratio, "≥ 50 ×" if whole else None, ratio >= 50 if whole else None),
        compare("  relative error", quantizer.notes["relative_error"][-1], error, "", 1.02),
        Row("  codes whose size is neither ⌊n/K⌋ nor ⌈n/K⌉", off, None, "", None, "0", off == 0),
    ]


def large(few: int, many: int, quick: bool) -> list[Row]:
    """Time and memory at two catalogue sizes, each in a fresh process."""
    sizes = (64, 64, 64) if quick else LARGE_SIZES
    found = [in_subprocess(__file__, ["--large", str(n), str(sizes[0])]) for n in (few, many)]
    shape = f"{len(sizes)} × {sizes[0]:,}"
    rows = [
        Row(
            f"rqkmeans, {n:,} × {DIMS}, {shape}, all cores: time", one["seconds"], None, "s", None, None, None
        )
        for n, one in zip((few, many), found, strict=True)
    ]
    growth = found[1]["seconds"] / found[0]["seconds"]
    rows.append(Row(f"  growth for {many / few:.0f} times the items", growth, None, "×", None, None, None))
    peak = found[1]["peak"] / 2**30
    rows.append(
        Row(
            "  peak memory, the mapped vectors counted", peak, None, "GiB", None, "≤ 6 GB", peak * 1.0737 <= 6
        )
    )
    return rows


def run_large(n: int, size: int) -> None:
    """One large fit; prints seconds, peak memory and the error as JSON."""
    from itemic.sid.quantizers import QUANTIZERS

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.f32"
        clustered(file, n)
        vectors = np.memmap(file, np.float32, "r", shape=(n, DIMS))
        started, cpu = time.perf_counter(), time.process_time()
        quantizer = QUANTIZERS["rqkmeans"](device="cpu")
        quantizer.fit(vectors, (size,) * 3)
        found = {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - cpu,
            "peak": peak_rss(),
        }
    print(json.dumps({**found, "relative_error": quantizer.notes["relative_error"]}))


def clustered(file: Path, n: int) -> None:
    """Write float32 ``[n, 384]``: 5,000 clusters in 1,000 themes, so that every level has something to find."""
    rng = np.random.default_rng(0)
    themes = rng.normal(size=(1000, DIMS)).astype(np.float32)
    centres = themes[rng.integers(1000, size=5000)] + 0.7 * rng.normal(size=(5000, DIMS)).astype(np.float32)
    with file.open("wb") as out:
        for start in range(0, n, BLOCK):
            count = min(BLOCK, n - start)
            noise = rng.standard_normal((count, DIMS), dtype=np.float32)
            (centres[rng.integers(5000, size=count)] + 0.5 * noise).tofile(out)


def our_error(name: str, x: Table, sizes: tuple[int, ...]) -> float:
    from itemic.sid.quantizers import QUANTIZERS

    quantizer = QUANTIZERS[name](device="cpu")
    quantizer.fit(x, sizes)
    return float(quantizer.notes["relative_error"][-1])


def faiss_residual(x: Table) -> float:
    import faiss

    quantizer = faiss.ResidualQuantizer(x.shape[1], len(SIZES), 8)
    quantizer.max_beam_size = 1
    quantizer.train_type = (
        faiss.ResidualQuantizer.Train_default
    )  # its fastest; progressive takes four times as long
    quantizer.train(x)
    return relative(x, x - quantizer.decode(quantizer.compute_codes(x)))


def faiss_kmeans(x: Table) -> float:
    import faiss

    residual = x.copy()
    for level, size in enumerate(SIZES):
        clusters = faiss.Kmeans(x.shape[1], size, niter=25, seed=level, max_points_per_centroid=1 << 30)
        clusters.train(residual)
        residual = residual - clusters.centroids[clusters.index.search(residual, 1)[1][:, 0]]
    return relative(x, residual)


def constrained_error(x: Table, sizes: tuple[int, ...]) -> float:
    from k_means_constrained import KMeansConstrained

    residual = x
    for level, size in enumerate(sizes):
        bounds = {"size_min": len(x) // size, "size_max": -(-len(x) // size)}
        fitted = KMeansConstrained(size, **bounds, n_init=1, n_jobs=1, random_state=level).fit(residual)
        residual = residual - fitted.cluster_centers_[fitted.labels_]
    return relative(x, residual)


def relative(x: Table, left: Table) -> float:
    return float((left.astype(np.float64) ** 2).sum() / ((x - x.mean(axis=0)).astype(np.float64) ** 2).sum())


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    started = time.process_time()
    value = run()
    return time.process_time() - started, value


def compare(name: str, ours: float, peer: float, unit: str, limit: float) -> Row:
    """A row whose target is that ours is at most ``limit`` of the peer's."""
    return Row(name, ours, peer, unit, peer / ours, f"≤ {limit:g} of it", ours <= limit * peer)


if __name__ == "__main__":
    if "--large" in sys.argv:
        run_large(*(int(number) for number in sys.argv[2:4]))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
        main("Quantizers of semantic IDs", measure, __doc__)
