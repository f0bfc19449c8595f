"""Headers as bytes, for any headers."""

from hypothesis import given
from hypothesis import strategies as st

from tieline.broker.local.codec import decode_headers, encode_headers


@given(st.lists(st.tuples(st.text(), st.none() | st.binary())).map(tuple))
def test_any_headers_survive(headers):
    assert decode_headers(encode_headers(headers)) == headers
