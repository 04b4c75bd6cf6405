"""What live views are shown of inquiries."""

from datetime import datetime

from attune.bus.messages import Entity, NotificationType
from attune.bus.transaction import Transaction
from attune.people.model import Inquiry, InquiryStatus

_KINDS = {
    InquiryStatus.PENDING: NotificationType.INQUIRY_CREATED,
    InquiryStatus.RESPONDED: NotificationType.INQUIRY_RESPONDED,
    InquiryStatus.TIMEOUT: NotificationType.INQUIRY_TIMEOUT,
    InquiryStatus.CANCELLED: NotificationType.INQUIRY_CANCELLED,
}


def created(transaction: Transaction, inquiry_id: int, execution: int, timeout_at: datetime | None) -> None:
    """Show a new inquiry."""
    _show(transaction, inquiry_id, execution, InquiryStatus.PENDING, timeout_at, transaction.now)


def ended(transaction: Transaction, inquiry: Inquiry, status: InquiryStatus) -> None:
    """Show that an inquiry was answered, or ended without an answer."""
    _show(transaction, inquiry.id, inquiry.execution, status, inquiry.question.timeout_at, inquiry.created)


def _show(
    transaction: Transaction,
    inquiry_id: int,
    execution: int,
    status: InquiryStatus,
    timeout_at: datetime | None,
    created_at: datetime,
) -> None:
    if transaction.shows(Entity.INQUIRY):
        transaction.notify(
            _KINDS[status],
            inquiry_id,
            {
                "execution": execution,
                "status": status,
                "timeout_at": timeout_at,
                "created": created_at,
                "updated": transaction.now,
            },
        )
