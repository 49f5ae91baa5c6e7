"""The lock that is held while backends are loaded or chosen, and while layers are prepared and kernels compiled."""

import os
import threading

__all__ = ["lock"]

lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A fork waits for it: while another thread imports a module or is inside LLVM, the child could do neither.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
