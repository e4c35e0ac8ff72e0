"""Web archives: the text of WET `conversion` records, and of the HTML pages of WARC `response` records.

FastWARC reads the records (ISO 28500) and takes HTTP's own compression away; Resiliparse turns a page into text. All of
a page's text is taken: finding its main part takes time that grows with the square of the nesting, and a page of 16,000
nested elements is easily made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from data_prep.config import SourceConfig
from data_prep.documents import Document, check_source_text, decode_utf8, too_long
from data_prep.sources.bad_records import BadRecords
from rlpt.errors import ConfigError, DataError

_PAGES = ("text/html", "application/xhtml+xml")
_RESPONSE = (
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n"
)
_END = b"\r\n\r\n"  # of every record


def read_warc(stream: BinaryIO, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """A document a record that holds text: WET's, and HTML pages with status 200. Others are passed over.

    Origins are `where:number of the record`. A record that is too long or not decodable goes to `bad`. Raises DataError
    where the archive can't be read on. Raises ConfigError without the `data` extra.
    """
    try:
        from fastwarc.warc import ArchiveIterator
    except ImportError as error:
        raise ConfigError(f"{where}: web archives need the extra `data` ({error}); pip install 'rlpt[data]'") from None
    followed = _Followed(stream)
    records = iter(ArchiveIterator(cast(BinaryIO, followed), parse_http=False, stream_detect=False))
    number = 0
    while True:
        number += 1
        place = f"{where}:{number}"
        try:
            record = next(records, None)
        except OSError as error:
            raise DataError(f"{place}: malformed WARC record ({error}); mend or cut the file here") from None
        if record is None:
            if followed.tail not in (b"", _END):
                raise DataError(f"{where}:{number - 1}: the archive ends within this record; write it anew")
            return
        try:
            text = _text(record, place, source.max_document_bytes)
        except DataError as error:
            if getattr(stream, "broken", False):
                raise
            bad.meet(error)
            continue
        if followed.ended and followed.tail != _END:
            raise DataError(f"{place}: the archive ends within this record; write it anew")
        if text:
            yield Document(text, place)


def _text(record: Any, where: str, limit: int) -> str:
    """The record's text; "" for one that is passed over."""
    from fastwarc.warc import WarcRecordType

    page = record.record_type == WarcRecordType.response and record.is_http
    if not page and record.record_type != WarcRecordType.conversion:
        return ""
    if record.content_length > limit:
        raise DataError(f"{where}: {too_long(limit)}")
    try:
        body = _body(record, limit)
        if not page:
            return check_source_text(decode_utf8(body, where), "text", where, limit)
        response = _response(body)
        if response.http_headers is None:
            raise DataError(f"{where}: no HTTP headers; mend or remove the record")
        if response.http_headers.status_code != 200 or response.http_content_type not in _PAGES:
            return ""
        body = _body(response, limit)
    except OSError as error:
        raise DataError(f"{where}: not decodable ({error}); mend or remove the record") from None
    if len(body) > limit:
        raise DataError(f"{where}: {too_long(limit)}")
    return check_source_text(_page_text(body, response.http_charset), "text", where, limit)


def _response(content: bytes) -> Any:
    """A response record of its own: a body that can't be decoded must not stop the next record from being found."""
    from fastwarc.warc import WarcRecord

    response = WarcRecord.from_bytes(_RESPONSE % len(content) + content + _END)
    response.parse_http(auto_decode="all")
    return response


def _body(record: Any, limit: int) -> bytes:
    """The first `limit` + 1 bytes of the record's content."""
    parts: list[bytes] = []
    missing = limit + 1
    while missing and (part := record.reader.read(min(missing, 1 << 20))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _page_text(body: bytes, charset: str | None) -> str:
    """A page's visible text. Bytes that its encoding does not know are replaced, as browsers do."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    found = detect_encoding(body, from_html_meta=True) or "utf-8"
    try:
        html = bytes_to_str(body, charset or found, errors="replace", fallback_encodings=(found,))
    except LookupError:  # a charset that nobody knows
        html = bytes_to_str(body, found, errors="replace", fallback_encodings=())
    return extract_plain_text(html, main_content=False, alt_texts=False).strip()


class _Followed:
    """A stream that remembers its last bytes, and whether it has ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._position = stream, 0
        self.tail, self.ended = b"", False

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self.ended = not data
        if data:
            self.tail = (self.tail + data[-len(_END) :])[-len(_END) :]
        return data

    def tell(self) -> int:
        return self._position
