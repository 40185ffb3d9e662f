#!/usr/bin/env python3
"""Writes the fuzzers' first inputs, cut out of tests/data. Usage: seeds.py ROOT OUT

OUT/TARGET/ gets small files in the form that fuzz_TARGET.c reads. Where a golden file is large only its head is taken:
the targets put zeros in place of what a header says is there."""
import json
import pathlib
import struct
import sys

DATA = pathlib.Path(sys.argv[1]) / 'tests/data'
NANO = pathlib.Path(sys.argv[1]) / 'models/nano'
OUT = pathlib.Path(sys.argv[2])
SEP = b'\xff\xff'
SPECIALS = ('<|endoftext|> [gMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|> <|code_prefix|> '
            '<|code_middle|> <|code_suffix|> <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> '
            '<arg_key> </arg_key> <arg_value> </arg_value> /nothink').split()
CONFIG = {'architectures': ['Glm4MoeForCausalLM'], 'model_type': 'glm4_moe', 'vocab_size': 16, 'hidden_size': 8,
          'num_hidden_layers': 2, 'first_k_dense_replace': 1, 'num_attention_heads': 2, 'num_key_value_heads': 1,
          'head_dim': 4, 'partial_rotary_factor': 0.5, 'intermediate_size': 8, 'moe_intermediate_size': 4,
          'n_routed_experts': 2, 'n_shared_experts': 1, 'num_experts_per_tok': 1, 'n_group': 1, 'topk_group': 1,
          'norm_topk_prob': True, 'routed_scaling_factor': 1.0, 'use_qk_norm': False, 'attention_bias': True,
          'rms_norm_eps': 1e-5, 'rope_theta': 1000000, 'max_position_embeddings': 64, 'num_nextn_predict_layers': 1}


def put(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def lines(name):
    return (DATA / name).read_text(encoding='utf-8').strip('\n').split('\n')


def small_tensors():
    """The tensors of a model of CONFIG's numbers."""
    d, h, kv, ff, e, f = 8, 8, 4, 8, 2, 4
    out = {'model.embed_tokens.weight': [16, d], 'lm_head.weight': [16, d], 'model.norm.weight': [d]}
    for layer in range(3):
        p = f'model.layers.{layer}.'
        out |= {p + 'input_layernorm.weight': [d], p + 'post_attention_layernorm.weight': [d]}
        for n, rows in (('q', h), ('k', kv), ('v', kv)):
            out |= {f'{p}self_attn.{n}_proj.weight': [rows, d], f'{p}self_attn.{n}_proj.bias': [rows]}
        out[p + 'self_attn.o_proj.weight'] = [d, h]
        if layer == 0:
            out |= {p + f'mlp.{n}_proj.weight': [ff, d] for n in ('gate', 'up')} | {p + 'mlp.down_proj.weight': [d, ff]}
            continue
        out |= {p + 'mlp.gate.weight': [e, d], p + 'mlp.gate.e_score_correction_bias': [e]}
        for part in ['experts.0', 'experts.1', 'shared_experts']:
            out |= {f'{p}mlp.{part}.{n}_proj.weight': [f, d] for n in ('gate', 'up')}
            out[f'{p}mlp.{part}.down_proj.weight'] = [d, f]
    p = 'model.layers.2.'
    out |= {p + 'enorm.weight': [d], p + 'hnorm.weight': [d], p + 'eh_proj.weight': [d, 2 * d],
            p + 'shared_head.norm.weight': [d], p + 'shared_head.head.weight': [16, d], p + 'embed_tokens.weight': [16, d]}
    return out


SIZES = {'F32': 4, 'I32': 4, 'BF16': 2, 'F16': 2, 'F8_E4M3': 1}


def quantized(how):
    """small_tensors with its 8 x 8 matrices packed as `how` says; a shape begins with its type where that is not F32."""
    out = {}
    for name, shape in small_tensors().items():
        if shape != [8, 8] or not name.endswith('_proj.weight'):
            out[name] = shape
            continue
        base, (rows, columns) = name[:-len('.weight')], shape
        if how == 'packed':
            out |= {base + '.weight_packed': ['I32', rows, columns // 8], base + '.weight_scale': ['BF16', rows, 1],
                    base + '.weight_zero_point': ['I32', 1, 1]}
        elif how == 'fp8':
            out |= {name: ['F8_E4M3', rows, columns], base + '.weight_scale': ['F32', rows, 1]}
        else:
            nibbles = [rows // 8, columns] if how == 'gptq' else [rows, columns // 8]
            out |= {base + '.qweight': ['I32', *nibbles], base + '.scales': ['F16', 1, rows], base + '.qzeros': ['I32', 1, 1]}
            if how == 'gptq':
                out[base + '.g_idx'] = ['I32', columns]
    return out


def safetensors(tensors, dtype='F32'):
    header, at = {}, 0
    for name, shape in tensors.items():
        kind, shape = (shape[0], shape[1:]) if isinstance(shape[0], str) else (dtype, shape)
        n = SIZES[kind]
        for x in shape:
            n *= x
        header[name] = {'dtype': kind, 'shape': shape, 'data_offsets': [at, at + n]}
        at += n
    text = json.dumps(header, separators=(',', ':')).encode()
    return struct.pack('<Q', len(text)) + text, at


def small_tokenizer():
    def spell(b):
        printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
        return chr(b) if b in printable else chr(256 + [x for x in range(256) if x not in printable].index(b))
    nano = json.loads((NANO / 'tokenizer.json').read_text(encoding='utf-8'))
    model = nano['model']
    model['vocab'] = {spell(b): b for b in range(256)} | {'ab': 256, 'abc': 257, 'bc': 258}
    model['merges'] = [['a', 'b'], ['b', 'c'], ['ab', 'c']]
    nano['added_tokens'] = [dict(nano['added_tokens'][0], id=300 + i, content=c) for i, c in enumerate(SPECIALS[:4])]
    return nano


def main():
    def dump(v):
        return json.dumps(v, separators=(',', ':'), ensure_ascii=False).encode()
    tok = small_tokenizer()
    put('tokenizer', 'small', dump(tok))
    tok['model']['merges'] = ['a b', 'b c', 'ab c']
    put('tokenizer', 'joined', dump(tok))

    head, n = safetensors(small_tensors())
    put('safetensors', 'small', bytes([n // 256 + 1]) + head + bytes(n % 256))
    put('safetensors', 'exact', b'\0' + head + bytes(n))
    head16, n16 = safetensors(small_tensors(), 'BF16')
    put('safetensors', 'bf16', b'\0' + head16 + bytes(n16))
    for how in ('packed', 'fp8', 'gptq', 'awq'):
        head_q, n_q = safetensors(quantized(how))
        put('safetensors', how, b'\0' + head_q + bytes(n_q))
    meta = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   '
    put('safetensors', 'metadata', b'\0' + struct.pack('<Q', len(meta)) + meta + bytes(4))

    put('index', 'two', dump({'metadata': {'total_size': 800}, 'weight_map': {
        'model.norm.weight': 'a.safetensors', 'lm_head.weight': 'a.safetensors',
        'model.embed_tokens.weight': 'b.safetensors'}}))

    gen = (DATA / 'configs/GLM-4.5.generation_config.json').read_bytes()
    tok_config = dump({'chat_template': '[gMASK]<sop>{{ messages }}'})
    for i, config in enumerate([CONFIG] + [json.loads(f.read_text()) for f in sorted((DATA / 'configs').glob('*config.json'))
                                           if 'generation' not in f.name]):
        if i > 0:  # real numbers need real tensors: these are opened without
            put('folder', f'config{i}', b'\2' + SEP.join([dump(config), gen, tok_config, b'', dump(tok), b'']))
        else:
            put('folder', 'small', b'\0' + SEP.join([dump(config), gen, b'', b'[gMASK]<sop>', b'', head + bytes(n)]))
            put('folder', 'read', b'\1' + SEP.join([dump(config), b'', tok_config, b'', b'', head + bytes(n)]))
    for folder in sorted((DATA / 'golden').iterdir()):
        config = folder / 'config.json'
        if config.exists():
            put('folder', folder.name, b'\2' + SEP.join([config.read_bytes(), b'', b'', b'', b'', b'']))
        for file in folder.glob('*.gguf'):
            raw = file.read_bytes()
            at = raw.find(b'output_norm.weight')
            cut = 16384 if at < 0 else min(len(raw), 65536)
            put('gguf', folder.name + '-' + file.stem, struct.pack('<H', min(4095, (len(raw) - cut) // 256)) + raw[:cut])

    for i, text in enumerate(['', 'Hello, world!', "it's 12345 o'clock\n\n  x", '你好，世界 😀👩‍👩‍👧', ' '.join(SPECIALS),
                              'def f(x):\n    return x + 1\n', 'ﬀ Ǆ İ ß \u00a0\u2003\u3000 \u0300', '\t\r\n \x00\x7f']):
        put('encode', str(i), text.encode())
    for i, line in enumerate(lines('chat_golden.jsonl')[::3] + lines('chat_extra.jsonl')[::3]):
        v = json.loads(line)
        v = {k: v.get(k) for k in ('messages', 'tools', 'kwargs')}
        put('chat', str(i), bytes([i % 8]) + dump(v))
        if i % 7 == 0:
            put('json', f'chat{i}', dump(v))
    for i, text in enumerate(['[1,-0,1e5,1.5E-7,123456789012345678901234567890,1e999]', '{"a":{"b":[null,true,false]}}',
                              '"\\ud83d\\ude00\\u0000\\n"', '[' * 40 + ']' * 40, '{"a":1,"a":2}', ' [ ] ', '2.2250738585072011e-308']):
        put('json', str(i), text.encode())
    for i, line in enumerate(lines('stream_cases.jsonl') + lines('stream_policy.jsonl')):
        text = json.loads(line)['input']
        put('stream', f's{i}', bytes([i % 2]) + b'\xc0' + text.encode())
        pieces, rest = bytearray([i % 2]), text  # the same by kind: text in pieces, markup by number
        while rest:
            special = next((k for k, s in enumerate(SPECIALS) if rest.startswith(s)), None)
            if special is not None:
                pieces.append(special)
                rest = rest[len(SPECIALS[special]):]
                continue
            n = min((p for p in (rest.find(s) for s in SPECIALS) if p > 0), default=len(rest))
            part = rest[:min(n, 20)].encode()
            pieces += bytes([22 + len(part)]) + part
            rest = rest[min(n, 20):]
        put('stream', f'p{i}', bytes(pieces))
    steps = bytes(range(7, 127, 5))
    schemas = [{'type': 'object', 'properties': {'a': {'type': 'integer', 'minimum': -3, 'multipleOf': 3}, 'b': {'enum': [1, 'x', None]}},
                'required': ['a'], 'additionalProperties': False}, {'anyOf': [{'type': 'string', 'maxLength': 3}, {'type': 'null'}]},
               {'type': 'array', 'items': {'$ref': '#'}, 'maxItems': 2}, {'$defs': {'t': {'properties': {'n': {'$ref': '#/$defs/t'}}}},
                '$ref': '#/$defs/t'}, {'type': 'string', 'format': 'date-time'}, {'not': {'type': ['object', 'number']}},
               {'if': {'properties': {'k': {'const': 1}}}, 'then': {'required': ['v']}, 'else': {'maxProperties': 1}},
               {'oneOf': [{'minimum': 5}, {'multipleOf': 2}]}, {'patternProperties': {'^x': {'type': 'boolean'}}, 'minProperties': 1},
               {'prefixItems': [{'const': 'a'}], 'contains': {'type': 'number'}, 'minContains': 2}, {'allOf': [{'pattern': 'a'},
                {'pattern': '^.{2,4}$'}]}, {'dependentRequired': {'a': ['b']}, 'propertyNames': {'maxLength': 1}}, True, {}]
    for i, schema in enumerate(schemas):
        put('schema', f's{i}', b'\1' + steps + dump(schema))
        put('schema', f'a{i}', b'\x13' + steps + dump(schema))
    for i, line in enumerate(lines('call_tools.jsonl')):
        put('schema', f't{i}', bytes([2 + 64 * (i % 2) + 32 * (i % 3 == 0)]) + steps + dump([json.loads(line)]))
    for i, text in enumerate(['^[a-z]+(-[a-z]+)*$', '(a|b){2,5}c?', r'\d{3}-\p{L}+', '^(?!foo)bar', r'[^\s]{1,9}', '(x+x+)+y']):
        put('schema', f'r{i}', b'\0' + steps + text.encode())
    for i, edits in enumerate([b'\1\0\0\5\7', b'\0\1{}', b'\1' + bytes(40), b'\2\3[1, 2]']):
        put('snapshot', str(i), edits)
    api = [bytes(int(x, 16) for x in calls.split()) for calls in ('14 00 00 00 00', '74 14 00 10 09 00 00', '8 00 03 00 28 14 00 00 0a 1a 00', '4b 05 01 02 03 04 05 00 00 0c 00',
                               '5f 83 01 14 00 00', '16 00 0d 04 00 00 0f 14 00', '14 30 09 30 00 46 00 00', 'e0 e1 2e 00')]
    for i, calls in enumerate(api):
        put('api', str(i), calls)
        put('api', f'long{i}', b''.join(api[i:] + api[:i]))


if __name__ == '__main__':
    main()
