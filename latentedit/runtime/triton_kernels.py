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
    FACTORS: tl.constexpr,
    BIAS: tl.constexpr,
    NOISE: tl.constexpr,
    ACTIVATED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A part of one row of the output; ``depth`` numbers of a position lie side by side."""
    row = tl.program_id(0)
    plane = row // out_height
    across_y = row - plane * out_height
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < out_width * depth
    across_x = place // depth
    channel = place - across_x * depth
    total = tl.zeros([BLOCK], dtype=tl.float32)

    for i in tl.static_range(TAPS):
        up_y = across_y * DOWN + i - top
        from_y = up_y // UP
        if (up_y >= 0) & (from_y * UP == up_y) & (from_y < height):
            tap_y = tl.load(taps + (TAPS - 1 - i if FLIP else i))
            for j in tl.static_range(TAPS):
                up_x = across_x * DOWN + j - left
                from_x = up_x // UP
                good = inside & (up_x >= 0) & (from_x * UP == up_x) & (from_x < width)
                at = ((plane * height + from_y) * width + from_x) * depth + channel
                tap = tap_y * tl.load(taps + (TAPS - 1 - j if FLIP else j))
                total += tap * tl.load(x + at, mask=good, other=0.0).to(tl.float32)

    total = total * gain
    if FACTORS:
        total = total * tl.load(factors + plane * depth + channel, mask=inside, other=0.0).to(
            tl.float32
        )

    if BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)

    if NOISE:
        at_noise = plane * noise_step + across_y * out_width + across_x
        total += tl.load(noise + at_noise, mask=inside, other=0.0).to(tl.float32)

    if ACTIVATED:
        total = tl.where(total > 0, total, total * slope)

    tl.store(y + (row * out_width) * depth + place, total.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["positions", "each", "noise_step", "sums_step"])
def layer_gradients(
    gradient,
    y,
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
        if PRODUCT:
            product += g * out
        if ACTIVATED:
            g = tl.where(out > 0, g, g * slope)
        before += g
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
    if NOISE:
        tl.store(to + 2 * sums_step, tl.sum(noisy, axis=0), mask=real)


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
