# Which instruction set runs.

cdef int _tier = 0


cdef int _tier_number(str name) except -1:
    names = {fastrnn_tier_name(tier).decode(): tier for tier in range(FASTRNN_TIERS)}
    if name not in names:
        raise ValueError(f"unknown ISA tier {name!r}; accepted: {', '.join(names)}")
    tier = names[name]
    if not fastrnn_tier_built(tier):
        raise RuntimeError(f"ISA tier {name!r} is not built into this copy of fastrnn, which has {_names('built')}; "
                           f"choose one of them")
    if not fastrnn_tier_runs(tier):
        raise RuntimeError(f"ISA tier {name!r} cannot run here: the processor or the operating system does not support "
                           f"it; choose one of {_names('ok')}")
    return tier


def _names(state):
    return ", ".join(name for name, found in tiers().items() if found == "ok" or state == "built" and found != "not built")


def tiers():
    """State of every tier: "ok", "not built" or "cannot run here"."""
    return {fastrnn_tier_name(tier).decode():
            "ok" if fastrnn_tier_runs(tier) else "cannot run here" if fastrnn_tier_built(tier) else "not built"
            for tier in range(FASTRNN_TIERS)}


def tier():
    """Name of the tier that new engines run on."""
    return fastrnn_tier_name(_tier).decode()


def select_tier(name=None):
    """Choose the tier of engines made from now on; None for the best that runs here."""
    global _tier
    _tier = max(t for t in range(FASTRNN_TIERS) if fastrnn_tier_runs(t)) if name is None else _tier_number(name)


select_tier()


def activate(str name, array, tier=None):
    """sigmoid or tanh of every element, as the kernels compute it; for tests."""
    cdef cnp.ndarray source = np.ascontiguousarray(array)
    cdef cnp.ndarray result = np.empty_like(source)
    cdef const fastrnn_kernels *kernels = fastrnn_get_kernels(_tier if tier is None else _tier_number(tier), _dtype_number(source.dtype))
    kernels.activate(_ACTIVATIONS[name], cnp.PyArray_DATA(source), cnp.PyArray_DATA(result), source.size)
    return result


cdef int _dtype_number(dtype) except -1:
    if dtype == np.float32:
        return FASTRNN_F32
    if dtype == np.float64:
        return FASTRNN_F64
    raise TypeError(f"dtype {dtype} has no kernels; accepted: float32, float64")
