"""All cutouts of a batch as the answer to a request, be it a page's or a program's."""

from __future__ import annotations

from fastapi.responses import StreamingResponse

from portal.delivery import read_results, zip_stream
from portal.fetched import noting_the_end
from portal.web.portal import Portal
from schemas.ids import BatchId
from store.records.people import Role


def zip_answer(portal: Portal, batch_id: BatchId, role: Role | None) -> StreamingResponse:
    """All cutouts of a batch in one zip file, streamed. `role`: of the person who asks; None for a key."""
    results = read_results(portal.transient, batch_id)
    stream = zip_stream(portal.transient, results)
    if role is None or role.submits:  # who looks changes nothing
        stream = noting_the_end(stream, portal.records, results, portal.clock)
    headers = {"Content-Disposition": f'attachment; filename="{batch_id}.zip"'}
    return StreamingResponse(stream, media_type="application/zip", headers=headers)
