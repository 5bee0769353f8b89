//! The SmartModule interface, the only place that handles pointers.
//!
//! The engine calls `alloc` for room, copies the input there, calls `init` or `array_map`, and
//! copies what was announced by `copy_records` after the call has returned; it frees nothing.
//! So the input is freed here when the call ends, and the output lives until the next one.

use std::cell::RefCell;

use crate::packer::Packer;
use crate::params::Params;
use crate::wire;

/// `SmartModuleInitErrorStatus::InitError` of `fluvio-smartmodule`.
const INIT_ERROR: i32 = -2;

/// `SmartModuleInitErrorStatus::DecodingInput`.
const INIT_BAD_INPUT: i32 = -10;

/// `SmartModuleTransformErrorStatus::DecodingBaseInput`.
const TRANSFORM_BAD_INPUT: i32 = -11;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn copy_records(ptr: *const u8, len: usize);
}

thread_local! {
    static STATE: RefCell<State> = const {
        RefCell::new(State {
            packer: None,
            output: Vec::new(),
        })
    };
}

struct State {
    packer: Option<Packer>,
    /// What the last call announced.
    output: Vec<u8>,
}

impl State {
    /// Makes room for an output and gives up the one before.
    fn begin(&mut self) {
        self.output.clear();
    }

    /// Announces the output to the engine.
    fn announce(&self) {
        // SAFETY: the host only notes pointer and length; the output stays where it is
        // until the next call into this module, and the host copies it before that.
        unsafe { copy_records(self.output.as_ptr(), self.output.len()) }
    }

    fn init(&mut self, input: &[u8], version: u32) -> i32 {
        self.begin();
        let Ok(map) = wire::read_init(input, version) else {
            return INIT_BAD_INPUT;
        };
        let packer = Params::from_map(&map)
            .map_err(|error| error.to_string())
            .and_then(|params| Packer::new(params).map_err(|error| error.to_string()));
        match packer {
            Ok(packer) => {
                self.packer = Some(packer);
                0
            }
            Err(message) => {
                wire::put_init_error(&mut self.output, &message);
                self.announce();
                INIT_ERROR
            }
        }
    }

    fn array_map(&mut self, input: &[u8], version: u32) -> i32 {
        self.begin();
        let Ok(input) = wire::read_input(input, version) else {
            return TRANSFORM_BAD_INPUT;
        };
        let packed = match self.packer.as_mut() {
            Some(packer) => packer
                .pack(
                    input.raw_records,
                    u64::try_from(input.base_offset).unwrap_or(0),
                    input.base_timestamp_ms,
                )
                .map_err(|error| error.to_string()),
            None => Err("`init` was not called".to_owned()),
        };
        let count = match packed {
            Ok(records) => {
                wire::put_output(&mut self.output, &records);
                records.len()
            }
            Err(message) => {
                wire::put_error(&mut self.output, &message, input.base_offset);
                0
            }
        };
        self.announce();
        i32::try_from(count).unwrap_or(i32::MAX)
    }
}

/// Gives the engine room for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(len)).cast()
}

/// Takes the parameters; 0, or a negative status.
///
/// # Safety
/// `ptr` came from [`alloc`] with this `len` and was filled since; it is freed here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn init(ptr: *mut u8, len: usize, version: u32) -> i32 {
    // SAFETY: as the caller vouches.
    let input = unsafe { input(ptr, len) };
    STATE.with_borrow_mut(|state| state.init(&input, version))
}

/// Packs one stored batch; the number of records, or a negative status.
///
/// # Safety
/// `ptr` came from [`alloc`] with this `len` and was filled since; it is freed here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn array_map(ptr: *mut u8, len: usize, version: u32) -> i32 {
    // SAFETY: as the caller vouches.
    let input = unsafe { input(ptr, len) };
    STATE.with_borrow_mut(|state| state.array_map(&input, version))
}

/// Takes back what [`alloc`] gave out.
///
/// # Safety
/// As for [`init`].
unsafe fn input(ptr: *mut u8, len: usize) -> Box<[u8]> {
    // SAFETY: `alloc` made this very slice, and the engine has filled it.
    unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(ptr, len)) }
}
