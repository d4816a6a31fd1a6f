"""The kernels of `latentedit.runtime.fused`, which says what they compute; imported where Triton is
at hand."""

# mypy: ignore-errors

import triton
import triton.language as tl


# Numbers whose kind (1, a multiple of 16) would only make for more kernels to compile; that of
# "depth" is worth it.
@triton.jit(
    do_not_specialize=["height", "width", "out_height", "out_width", "top", "left", "noise_step"],
)
def fir(
    x,
    taps,
    y,
    factors,
    bias,
    noise,
    height,
    width,
    depth,
    out_height,
    out_width,
    top,
    left,
    gain,
    slope,
    noise_step,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    TAPS: tl.constexpr,
    FLIP: tl.constexpr,
    TOP_PHASE: tl.constexpr,
    LEFT_PHASE: tl.constexpr,
    FACTORS: tl.constexpr,
    BIAS: tl.constexpr,
    NOISE: tl.constexpr,
    ACTIVATED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same part of ``ROWS`` rows of the output; ``depth`` numbers of a position lie side by
    side.

    A row of the input is filtered along x once, for all rows of the output that it counts in, and
    only by the taps that do not meet the zeros between its numbers. ``ROWS`` is 1, 2 or 4, and a
    multiple of ``UP``; phases are ``top`` and ``left`` modulo ``UP``. So which tap of a column
    meets which row is known beforehand.
    """
    bands = (out_height + ROWS - 1) // ROWS
    plane = tl.program_id(0) // bands
    first = (tl.program_id(0) - plane * bands) * ROWS
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < out_width * depth
    across = place // depth
    channel = place - across * depth

    # The first tap of a row that meets a number of the input, and which number that is.
    skipped = (LEFT_PHASE + UP - (across * DOWN) % UP) % UP
    column = (across * DOWN + skipped - left) // UP
    top_row = (first * DOWN + TOP_PHASE - top) // UP
    row0 = tl.zeros([BLOCK], dtype=tl.float32)
    row1 = row0
    row2 = row0
    row3 = row0

    for s in tl.static_range(((ROWS - 1) * DOWN + TAPS - 1 - TOP_PHASE) // UP + 1):
        from_y = top_row + s
        there = inside & (from_y >= 0) & (from_y < height)
        line = (plane * height + from_y) * width
        total = tl.zeros([BLOCK], dtype=tl.float32)
        for t in tl.static_range((TAPS + UP - 1) // UP):
            from_x = column + t
            good = there & (from_x >= 0) & (from_x < width)
            if UP == 1:
                tap = tl.load(taps + (TAPS - 1 - t if FLIP else t))
            else:
                number = skipped + t * UP
                real = number < TAPS
                good = good & real
                at_tap = TAPS - 1 - number if FLIP else number
                tap = tl.load(taps + at_tap, mask=real, other=0.0)
            value = tl.load(x + (line + from_x) * depth + channel, mask=good, other=0.0)
            total += tap * value.to(tl.float32)

        row0 = _tapped(row0, total, taps, s * UP + TOP_PHASE, TAPS, FLIP)
        if ROWS > 1:
            row1 = _tapped(row1, total, taps, s * UP + TOP_PHASE - DOWN, TAPS, FLIP)
        if ROWS > 2:
            row2 = _tapped(row2, total, taps, s * UP + TOP_PHASE - 2 * DOWN, TAPS, FLIP)
            row3 = _tapped(row3, total, taps, s * UP + TOP_PHASE - 3 * DOWN, TAPS, FLIP)

    if FACTORS:
        factor = tl.load(factors + plane * depth + channel, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)

    for r in tl.static_range(ROWS):
        total = row0 if r == 0 else row1 if r == 1 else row2 if r == 2 else row3
        total = total * gain
        real = inside & (first + r < out_height)
        if FACTORS:
            total = total * factor
        if BIAS:
            total += shift
        if NOISE:
            at_noise = plane * noise_step + (first + r) * out_width + across
            total += tl.load(noise + at_noise, mask=real, other=0.0).to(tl.float32)
        if ACTIVATED:
            total = tl.where(total > 0, total, total * slope)

        to = (plane * out_height + first + r) * out_width * depth + place
        tl.store(y + to, total.to(y.dtype.element_ty), mask=real)


@triton.jit
def _tapped(sum, row, taps, number: tl.constexpr, TAPS: tl.constexpr, FLIP: tl.constexpr):
    """``sum`` plus ``row`` times the tap of this number, if there is one."""
    if (number >= 0) & (number < TAPS):
        sum += row * tl.load(taps + (TAPS - 1 - number if FLIP else number))
    return sum


@triton.jit(do_not_specialize=["positions", "each", "noise_step", "sums_step"])
def layer_gradients(
    gradient,
    y,
    x,
    factors,
    noise,
    scaled,
    sums,
    over_channels,
    positions,
    depth,
    each,
    noise_step,
    sums_step,
    slope,
    FACTORS: tl.constexpr,
    NOISE: tl.constexpr,
    TO_NOISE: tl.constexpr,
    PRODUCT: tl.constexpr,
    GIVEN: tl.constexpr,
    ACTIVATED: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """``each`` positions of one picture, all channels."""
    picture = tl.program_id(0)
    part = tl.program_id(1)
    channel = tl.arange(0, WIDE)
    real = channel < depth
    # Added up position by position, and over positions only once: a sum over threads for every
    # tile took most of the time.
    before = tl.zeros([PIXELS, WIDE], dtype=tl.float32)
    product = tl.zeros([PIXELS, WIDE], dtype=tl.float32)
    noisy = tl.zeros([PIXELS, WIDE], dtype=tl.float32)
    if FACTORS:
        factor = tl.load(factors + picture * depth + channel, mask=real, other=0.0).to(tl.float32)

    end = tl.minimum(part * each + each, positions)
    for start in range(part * each, end, PIXELS):
        place = start + tl.arange(0, PIXELS)
        there = place < end
        good = there[:, None] & real[None, :]
        at = (picture * positions + place)[:, None] * depth + channel[None, :]
        g = tl.load(gradient + at, mask=good, other=0.0).to(tl.float32)
        out = tl.load(y + at, mask=good, other=0.0).to(tl.float32)
        if PRODUCT and not GIVEN:
            product += g * out
        if ACTIVATED:
            g = tl.where(out > 0, g, g * slope)
        before += g
        if GIVEN:
            product += g * tl.load(x + at, mask=good, other=0.0).to(tl.float32)
        if NOISE:
            map_ = tl.load(noise + picture * noise_step + place, mask=there, other=0.0).to(
                tl.float32
            )
            noisy += g * map_[:, None]

        if TO_NOISE:
            tl.store(over_channels + picture * positions + place, tl.sum(g, axis=1), mask=there)
        if FACTORS:
            g = g * factor[None, :]
        tl.store(scaled + at, g.to(scaled.dtype.element_ty), mask=good)

    parts = tl.num_programs(1)
    to = sums + (picture * parts + part) * depth + channel
    tl.store(to, tl.sum(before, axis=0), mask=real)
    if PRODUCT:
        tl.store(to + sums_step, tl.sum(product, axis=0), mask=real)
        tl.store(to + 2 * sums_step, tl.sum(noisy, axis=0), mask=real)


@triton.jit(do_not_specialize=["positions", "each"])
def layer_changes(
    gradient,
    y,
    x,
    change,
    factors,
    of_factors,
    for_gradient,
    for_x,
    sums,
    positions,
    depth,
    each,
    slope,
    ACTIVATED: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """``each`` positions of one picture, all channels; laid out as in `layer_gradients`."""
    picture = tl.program_id(0)
    part = tl.program_id(1)
    channel = tl.arange(0, WIDE)
    real = channel < depth
    total = tl.zeros([PIXELS, WIDE], dtype=tl.float32)
    factor = tl.load(factors + picture * depth + channel, mask=real, other=0.0).to(tl.float32)
    of_factor = tl.load(of_factors + picture * depth + channel, mask=real, other=0.0).to(tl.float32)

    end = tl.minimum(part * each + each, positions)
    for start in range(part * each, end, PIXELS):
        place = start + tl.arange(0, PIXELS)
        good = (place < end)[:, None] & real[None, :]
        at = (picture * positions + place)[:, None] * depth + channel[None, :]
        g = tl.load(gradient + at, mask=good, other=0.0).to(tl.float32)
        value = tl.load(x + at, mask=good, other=0.0).to(tl.float32)
        u = tl.load(change + at, mask=good, other=0.0).to(tl.float32)
        to_g = u * factor[None, :] + value * of_factor[None, :]
        if ACTIVATED:
            out = tl.load(y + at, mask=good, other=0.0).to(tl.float32)
            g = tl.where(out > 0, g, g * slope)
            to_g = tl.where(out > 0, to_g, to_g * slope)
        total += u * g
        tl.store(for_gradient + at, to_g.to(for_gradient.dtype.element_ty), mask=good)
        tl.store(for_x + at, (g * of_factor[None, :]).to(for_x.dtype.element_ty), mask=good)

    to = sums + (picture * tl.num_programs(1) + part) * depth + channel
    tl.store(to, tl.sum(total, axis=0), mask=real)


@triton.jit
def _high(a, b):
    """The upper 32 bits of the product of two words."""
    return ((a.to(tl.uint64) * b) >> 32).to(tl.uint32)


@triton.jit
def _word(position, sample, step, low_key, high_key, ROUNDS: tl.constexpr):
    """Word number ``position`` of a stream, as `latentedit.training.philox` makes it."""
    c0 = (position >> 2).to(tl.uint32)
    c1 = sample.to(tl.uint32) + tl.zeros_like(c0)
    c2 = tl.load(step).to(tl.uint32) + tl.zeros_like(c0)
    c3 = tl.load(step + 1).to(tl.uint32) + tl.zeros_like(c0)
    k0 = low_key.to(tl.uint32)
    k1 = high_key.to(tl.uint32)
    first = tl.full([1], 0xD2511F53, tl.uint32)
    second = tl.full([1], 0xCD9E8D57, tl.uint32)
    weyl0 = tl.full([1], 0x9E3779B9, tl.uint32)
    weyl1 = tl.full([1], 0xBB67AE85, tl.uint32)

    for _ in tl.static_range(ROUNDS):
        one = c0
        two = c2
        c0 = _high(two, second) ^ c1 ^ k0
        c2 = _high(one, first) ^ c3 ^ k1
        c1 = two * second
        c3 = one * first
        k0 = k0 + weyl0
        k1 = k1 + weyl1

    lane = position & 3
    return tl.where(lane < 2, tl.where(lane == 0, c0, c1), tl.where(lane == 2, c2, c3))


@triton.jit(do_not_specialize=["low_key", "high_key", "start", "count"])
def random_words(
    samples, step, low_key, high_key, y, start, count, ROUNDS: tl.constexpr, BLOCK: tl.constexpr
):
    """``count`` words of a stream from its word ``start`` on, as int64."""
    row = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.load(samples + row)
    word = _word(start + place, sample, step, low_key, high_key, ROUNDS)
    tl.store(y + row * count + place, word.to(tl.int64), mask=place < count)


@triton.jit(do_not_specialize=["low_key", "high_key", "start", "half"])
def random_normal(
    samples, step, low_key, high_key, y, start, half, ROUNDS: tl.constexpr, BLOCK: tl.constexpr
):
    """Twice ``half`` standard normal numbers (Box and Muller 1958), in the order of
    `latentedit.training.philox.to_normal`."""
    row = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.load(samples + row)
    first = _word(start + place, sample, step, low_key, high_key, ROUNDS)
    second = _word(start + half + place, sample, step, low_key, high_key, ROUNDS)
    share = 5.9604644775390625e-08  # 2^-24
    radius = tl.sqrt(-2.0 * tl.log(((first >> 8) + 1).to(tl.float32) * share))
    angle = (second >> 8).to(tl.float32) * (6.283185307179586 * share)
    to = y + row * 2 * half + place
    inside = place < half
    tl.store(to, radius * tl.cos(angle), mask=inside)
    tl.store(to + half, radius * tl.sin(angle), mask=inside)
