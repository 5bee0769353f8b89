//! The one table that says what to do about an error of DynamoDB.
//!
//! Sources: DynamoDB developer guide, "Error handling with DynamoDB"
//! (`Programming.Errors.html`: which codes may be retried), the common errors of the API
//! reference (`CommonErrors.html`) and `API_ThrottlingReason.html` (resource, operation, limit);
//! read 2026-11-23.

/// Which limit throttled a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttle {
    /// The service did not say.
    Unknown,
    /// Provisioned capacity of the table, or the maximum set for on-demand.
    Table,
    /// The same of an index, which every write of the table goes to.
    Index,
    /// One key range: a hot partition key.
    KeyRange,
    /// The account's limit in the region, or its rate of control requests.
    Account,
}

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Wait as the limit needs, then send the same again.
    Throttled(Throttle),
    /// The call may or may not have taken effect; wait, then send the same again.
    Transient,
    /// It was not sent, since the ledger row was not looked at for too long: look, then send it.
    Unsent,
    /// It was not sent and must not be: the topic partition is another process's.
    Fenced,
    /// Credentials have expired. If they worked before, they may be renewed: wait, then send the same
    /// again.
    Expired,
    /// Credentials are refused or cannot be had; with what to change. If they worked before, as
    /// [`Verdict::Expired`].
    Credentials(&'static str),
    /// Something in the request itself is refused; with one row in it, it is that row.
    Rejected,
    /// The condition of a write did not hold.
    ConditionFailed,
    /// There is no such table.
    NoTable,
    /// The table exists already, or is being changed.
    InUse,
    /// No try can succeed before somebody changes something; with what to change.
    Fatal(&'static str),
}

/// What to do about credentials that are refused.
pub const CREDENTIALS: &str =
    "check the credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the profile";
const PERMISSION: &str = "allow the IAM actions that the sink's README lists on this table";
const REQUEST: &str = "the request is not understood there: check `endpoint` and the version";

/// What to do about an error code, its throttling reasons and its HTTP status.
#[must_use]
pub fn classify<'a>(
    code: Option<&str>,
    reasons: impl IntoIterator<Item = &'a str>,
    status: Option<u16>,
) -> Verdict {
    match code.unwrap_or_default() {
        // Programming.Errors.html, "OK to retry? Yes", with reasons by API_ThrottlingReason.html.
        "ProvisionedThroughputExceededException" => {
            Verdict::Throttled(throttle(reasons).max(Throttle::Table))
        }
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" => {
            Verdict::Throttled(throttle(reasons))
        }
        "RequestLimitExceeded" => Verdict::Throttled(throttle(reasons).max(Throttle::Account)),
        // Control plane: too many tables created or changed at the same time.
        "LimitExceededException" => Verdict::Throttled(Throttle::Account),
        "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Verdict::Transient,
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => Verdict::Expired,
        "ValidationException" | "ItemCollectionSizeLimitExceededException" => Verdict::Rejected,
        "ConditionalCheckFailedException" => Verdict::ConditionFailed,
        "ResourceNotFoundException" | "TableNotFoundException" => Verdict::NoTable,
        "ResourceInUseException" | "TableAlreadyExistsException" | "TableInUseException" => {
            Verdict::InUse
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch" => Verdict::Credentials(CREDENTIALS),
        "AccessDeniedException" | "AccessDenied" | "OptInRequired" | "NotAuthorized" => {
            Verdict::Fatal(PERMISSION)
        }
        _ => match status {
            Some(429) => Verdict::Throttled(throttle(reasons)),
            Some(500..) | Some(408) | None => Verdict::Transient,
            // The service always gives a code: without one, the answer was cut on its way.
            Some(200..=299 | 400) if code.is_none() => Verdict::Transient,
            Some(_) => Verdict::Fatal(REQUEST),
        },
    }
}

/// The widest limit among the reasons: it decides how long to wait.
fn throttle<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Throttle {
    let one = |reason: &str| match reason {
        _ if reason.ends_with("AccountLimitExceeded") => Throttle::Account,
        _ if reason.ends_with("KeyRangeThroughputExceeded") => Throttle::KeyRange,
        _ if reason.ends_with("ProvisionedThroughputExceeded")
            || reason.ends_with("MaxOnDemandThroughputExceeded") =>
        {
            match reason.starts_with("Index") {
                true => Throttle::Index,
                false => Throttle::Table,
            }
        }
        _ => Throttle::Unknown,
    };
    reasons
        .into_iter()
        .map(one)
        .max()
        .unwrap_or(Throttle::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_verdict() {
        let provisioned = "ProvisionedThroughputExceededException";
        let cases: &[(&str, &[&str], u16, Verdict)] = &[
            (provisioned, &[], 400, Verdict::Throttled(Throttle::Table)),
            (
                provisioned,
                &["TableWriteProvisionedThroughputExceeded"],
                400,
                Verdict::Throttled(Throttle::Table),
            ),
            (
                provisioned,
                &["TableWriteKeyRangeThroughputExceeded"],
                400,
                Verdict::Throttled(Throttle::KeyRange),
            ),
            (
                "ThrottlingException",
                &["TableWriteMaxOnDemandThroughputExceeded"],
                400,
                Verdict::Throttled(Throttle::Table),
            ),
            (
                provisioned,
                &["IndexWriteProvisionedThroughputExceeded"],
                400,
                Verdict::Throttled(Throttle::Index),
            ),
            (
                "ThrottlingException",
                &[
                    "IndexWriteKeyRangeThroughputExceeded",
                    "TableWriteAccountLimitExceeded",
                ],
                400,
                Verdict::Throttled(Throttle::Account),
            ),
            (
                "ThrottlingException",
                &[],
                400,
                Verdict::Throttled(Throttle::Unknown),
            ),
            (
                "ThrottlingException",
                &["New"],
                400,
                Verdict::Throttled(Throttle::Unknown),
            ),
            (
                "RequestLimitExceeded",
                &[],
                400,
                Verdict::Throttled(Throttle::Account),
            ),
            (
                "LimitExceededException",
                &[],
                400,
                Verdict::Throttled(Throttle::Account),
            ),
            ("InternalServerError", &[], 500, Verdict::Transient),
            ("ServiceUnavailable", &[], 503, Verdict::Transient),
            (
                "ReplicatedWriteConflictException",
                &[],
                400,
                Verdict::Transient,
            ),
            ("TransactionConflictException", &[], 400, Verdict::Transient),
            ("ExpiredTokenException", &[], 400, Verdict::Expired),
            ("ValidationException", &[], 400, Verdict::Rejected),
            (
                "ItemCollectionSizeLimitExceededException",
                &[],
                400,
                Verdict::Rejected,
            ),
            (
                "ConditionalCheckFailedException",
                &[],
                400,
                Verdict::ConditionFailed,
            ),
            ("ResourceNotFoundException", &[], 400, Verdict::NoTable),
            ("ResourceInUseException", &[], 400, Verdict::InUse),
            (
                "UnrecognizedClientException",
                &[],
                400,
                Verdict::Credentials(CREDENTIALS),
            ),
            (
                "InvalidSignatureException",
                &[],
                400,
                Verdict::Credentials(CREDENTIALS),
            ),
            (
                "AccessDeniedException",
                &[],
                400,
                Verdict::Fatal(PERMISSION),
            ),
            (
                "UnknownOperationException",
                &[],
                400,
                Verdict::Fatal(REQUEST),
            ),
            ("SomethingNew", &[], 503, Verdict::Transient),
            (
                "SomethingNew",
                &[],
                429,
                Verdict::Throttled(Throttle::Unknown),
            ),
        ];
        for (code, reasons, status, verdict) in cases {
            assert_eq!(
                classify(Some(code), reasons.iter().copied(), Some(*status)),
                *verdict,
                "{code} {reasons:?} {status}"
            );
        }
        assert_eq!(classify(None, [], None), Verdict::Transient);
        assert_eq!(classify(None, [], Some(200)), Verdict::Transient);
        assert_eq!(classify(None, [], Some(400)), Verdict::Transient);
        assert_eq!(classify(None, [], Some(404)), Verdict::Fatal(REQUEST));
    }
}
