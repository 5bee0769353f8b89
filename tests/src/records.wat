;; For every batch, or for those of WANTED records alone unless that is 0: COPIES records of BYTES zero
;; bytes each, whatever else went in. BYTES is a varint of three bytes: 8192 to 1048575.
(module
  (import "env" "copy_records" (func $copy_records (param i32 i32)))
  (memory (export "memory") 64)
  (global $top (mut i32) (i32.const 1024))
  (global $at (mut i32) (i32.const 0))
  (func (export "alloc") (param $len i32) (result i32)
    (i32.const 2097152))
  (func $byte (param $value i32)
    (i32.store8 (global.get $at) (local.get $value))
    (global.set $at (i32.add (global.get $at) (i32.const 1))))
  ;; Zigzag varint of a number that is not negative.
  (func $varint (param $value i32)
    (local.set $value (i32.shl (local.get $value) (i32.const 1)))
    (loop $more
      (if (i32.ge_u (local.get $value) (i32.const 128))
        (then
          (call $byte (i32.or (i32.and (local.get $value) (i32.const 127)) (i32.const 128)))
          (local.set $value (i32.shr_u (local.get $value) (i32.const 7)))
          (br $more))))
    (call $byte (local.get $value)))
  (func (export "array_map") (param $ptr i32) (param $len i32) (param $version i32) (result i32)
    (local $left i32)
    (global.set $at (global.get $top))
    (local.set $left (i32.const COPIES))
    ;; base offset, length, and the lowest byte of the count
    (if (i32.and
          (i32.ne (i32.const WANTED) (i32.const 0))
          (i32.ne (i32.load8_u offset=15 (local.get $ptr)) (i32.const WANTED)))
      (then (local.set $left (i32.const 0))))
    ;; count, big endian; fewer than 256
    (call $byte (i32.const 0)) (call $byte (i32.const 0)) (call $byte (i32.const 0))
    (call $byte (local.get $left))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        ;; length of the record: attributes, two deltas, no key, value, headers
        (call $varint (i32.add (i32.const BYTES) (i32.const 8)))
        (call $byte (i32.const 0))
        (call $byte (i32.const 0))
        (call $byte (i32.const 0))
        (call $byte (i32.const 0))
        (call $varint (i32.const BYTES))
        (memory.fill (global.get $at) (i32.const 0) (i32.const BYTES))
        (global.set $at (i32.add (global.get $at) (i32.const BYTES)))
        (call $byte (i32.const 0))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    ;; no error
    (call $byte (i32.const 0))
    (call $copy_records (global.get $top) (i32.sub (global.get $at) (global.get $top)))
    (i32.const 0)))
