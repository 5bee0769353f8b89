//! Retention, capacity mode, record size.

use super::{
    Kinesis, KinesisError, StreamMode, StreamStatus,
    kinesis::check_max_record_kib,
    limits::{MAX_RETENTION_HOURS, MIN_RETENTION_HOURS},
};

impl<P> Kinesis<P> {
    /// Lengthens the retention.
    ///
    /// # Errors
    /// `InvalidArgumentException` (not longer than now, or not 24 to 8,760 hours),
    /// `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn increase_retention(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        hours: u32,
    ) -> Result<(), KinesisError> {
        self.set_retention(now_ms, stream_name, hours, "longer", |current| {
            hours > current
        })
    }

    /// Shortens the retention; what is older is gone at once.
    ///
    /// # Errors
    /// `InvalidArgumentException` (not shorter than now, or not 24 to 8,760 hours),
    /// `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn decrease_retention(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        hours: u32,
    ) -> Result<(), KinesisError> {
        self.set_retention(now_ms, stream_name, hours, "shorter", |current| {
            hours < current
        })
    }

    fn set_retention(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        hours: u32,
        direction: &str,
        allowed: impl Fn(u32) -> bool,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        if !(MIN_RETENTION_HOURS..=MAX_RETENTION_HOURS).contains(&hours) {
            return Err(KinesisError::invalid(format!(
                "`RetentionPeriodHours` is {MIN_RETENTION_HOURS} to {MAX_RETENTION_HOURS}, was {hours}"
            )));
        }
        stream.check_changeable(config)?;
        if !allowed(stream.retention_hours) {
            return Err(KinesisError::invalid(format!(
                "`RetentionPeriodHours` {hours} is not {direction} than that of stream `{stream_name}`, {}",
                stream.retention_hours
            )));
        }
        stream.retention_hours = hours;
        stream.retention_changed(now_ms);
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(())
    }

    /// Changes the capacity mode. Shards stay as they are.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn update_stream_mode(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        mode: StreamMode,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        stream.check_changeable(config)?;
        stream.mode = mode;
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(())
    }

    /// Changes the largest record of the stream, in KiB.
    ///
    /// # Errors
    /// `ValidationException` (not 1,024 to 10,240), `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn update_max_record_size(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        kib: u32,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        check_max_record_kib(kib)?;
        let (stream, config) = self.stream_and_config(stream_name)?;
        stream.check_changeable(config)?;
        stream.max_record_kib = kib;
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(())
    }
}
