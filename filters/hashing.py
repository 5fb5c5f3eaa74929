"""The one mixing function for 64-bit hashes."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def mix(values: Keys) -> Keys:
    """Spread 64-bit values over the whole range by the finalizer of MurmurHash3 (Appleby, public domain).

    Args:
        values: uint64, any shape; not changed.

    Returns:
        An array of the same shape: a bijection of each value.
    """
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_1
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_2
    return values ^ (values >> np.uint64(33))
