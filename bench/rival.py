"""The other engines' side of cpu.py: one model held open in llama.cpp or ik_llama.cpp, through the native libraries of
their Python packages, measured on the same commands as ours.c.

    python3 rival.py llama|ik|ik-rtr MODEL THREADS
"""
import ctypes
import sys
import time


def random_ids(seed, n, n_vocab):
    """The same numbers as in ours.c."""
    mask, out = (1 << 64) - 1, []
    for _ in range(n):
        seed = seed + 0x9E3779B97F4A7C15 & mask
        z = seed
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        out.append((z ^ z >> 31) % n_vocab)
    return out, seed


class Llama:
    """llama.cpp, with its own repacking, which it has on by default."""

    def __init__(self, path, n_threads):
        import llama_cpp as lib

        self.lib, self.n_threads = lib, n_threads
        quiet = lib.llama_log_callback(lambda level, text, user: None)
        lib.llama_log_set(quiet, ctypes.c_void_p(0))
        self.keep = quiet
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit("error cannot load the model")
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.info = lib.llama_print_system_info().decode()

    def context(self, n_ctx, n_seq):
        p = self.lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = n_ctx * n_seq, 512, 512, n_seq
        p.n_threads = p.n_threads_batch = self.n_threads
        p.flash_attn_type = 1
        return self.lib.llama_init_from_model(self.model, p)

    def forget(self, ctx, seq, begin):
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(ctx), seq, begin, -1)


class Ik:
    """ik_llama.cpp, with or without repacking all weights at load."""

    def __init__(self, path, n_threads, repack):
        import ik_llama_cpp._ctypes_api as lib

        self.lib, self.n_threads = lib, n_threads
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.repack_tensors = repack
        params.use_mmap = not repack
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit("error cannot load the model")
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        raw = lib._lib
        raw.llama_print_system_info.restype = ctypes.c_char_p
        raw.llama_kv_cache_seq_rm.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
        raw.llama_kv_cache_seq_rm.restype = ctypes.c_bool
        self.raw, self.info = raw, raw.llama_print_system_info().decode()

    def context(self, n_ctx, n_seq):
        p = self.lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = n_ctx * n_seq, 512, 512, n_seq
        p.n_threads = p.n_threads_batch = self.n_threads
        p.flash_attn = True
        p.fused_moe_up_gate = True
        p.fused_up_gate = True
        return self.lib.llama_init_from_model(self.model, p)

    def forget(self, ctx, seq, begin):
        self.raw.llama_kv_cache_seq_rm(ctx, seq, begin, -1)


class Rival:
    def __init__(self, engine):
        self.engine, self.n_kept, self.contexts = engine, 0, {}
        self.batch = engine.lib.llama_batch_init(512, 0, 64)

    def context(self, n_ctx, n_seq):
        key = (n_ctx, n_seq)
        if key not in self.contexts:
            ctx = self.engine.context(n_ctx, n_seq)
            if not ctx:
                raise SystemExit("error cannot open a context")
            self.contexts[key] = ctx
        return self.contexts[key]

    def decode_rows(self, ctx, rows):
        """rows: (id, position, sequence, wants logits)."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, seq, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, wanted
            b.seq_id[i][0] = seq
        rc = self.engine.lib.llama_decode(ctx, b)
        if rc:
            raise SystemExit(f"error llama_decode: {rc}")

    def rows(self, ctx, seq, pos, n, seed, chunk):
        ids, _ = random_ids(seed, n, self.engine.n_vocab)
        begin = time.perf_counter()
        for at in range(0, n, chunk):
            part = ids[at : at + chunk]
            self.decode_rows(ctx, [(t, pos + at + i, seq, chunk == 1 or at + i + 1 == n) for i, t in enumerate(part)])
        return time.perf_counter() - begin

    def prefill(self, n, seed):
        ctx = self.context((n + 255) // 256 * 256, 1)
        t = self.rows(ctx, 0, 0, n, seed, 512)
        self.engine.forget(ctx, 0, 0)
        return t

    def kept(self):
        return self.context((self.n_kept + 256 + 255) // 256 * 256, 1)

    def fill(self, n, seed):
        self.n_kept = n
        self.engine.forget(self.kept(), 0, 0)
        return self.rows(self.kept(), 0, 0, n, seed, 512)

    def decode(self, n, seed):
        t = self.rows(self.kept(), 0, self.n_kept, n, seed, 1)
        self.engine.forget(self.kept(), 0, self.n_kept)
        return t

    def sequences(self, n_seq, n_ctx, n, seed):
        ctx = self.context((n_ctx + n + 255) // 256 * 256, n_seq)
        for s in range(n_seq):
            self.rows(ctx, s, 0, n_ctx, seed + 1000 + s, 512)
        ids, _ = random_ids(seed, n * n_seq, self.engine.n_vocab)
        begin = time.perf_counter()
        for t in range(n):
            self.decode_rows(ctx, [(ids[t * n_seq + s], n_ctx + t, s, 1) for s in range(n_seq)])
        begin = time.perf_counter() - begin
        for s in range(n_seq):
            self.engine.forget(ctx, s, 0)
        return begin


def main():
    kind, path, n_threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    begin = time.perf_counter()
    engine = Llama(path, n_threads) if kind == "llama" else Ik(path, n_threads, kind == "ik-rtr")
    rival = Rival(engine)
    print(f"ready {time.perf_counter() - begin:.6f} {engine.info}", flush=True)
    for line in sys.stdin:
        name, *numbers = line.split()
        call = {"prefill": rival.prefill, "fill": rival.fill, "decode": rival.decode, "batch": rival.sequences}[name]
        print(f"{call(*map(int, numbers)):.9g}", flush=True)


main()
