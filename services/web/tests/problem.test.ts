import { describe, expect, it } from 'vitest'
import { ApiError, failureOf, problemOf, retryAfterOf } from '../src/api/problem'

function answer(status: number, body: string, headers: Record<string, string> = {}): ApiError {
  const known = new Headers({ 'Content-Type': 'application/problem+json', ...headers })
  return problemOf(status, (name) => known.get(name), body)
}

describe('problemOf', () => {
  it('reads a problem document', () => {
    const body = {
      type: 'urn:slipway:problem:invalid-request',
      title: 'Invalid request',
      status: 422,
      detail: '1 field(s) do not have the required form.',
      errors: [{ detail: 'too short', pointer: '#/password', code: 'common-password' }, 'no object'],
      request_id: 'abc',
    }
    const error = answer(422, JSON.stringify(body))
    expect(error).toMatchObject({ status: 422, code: 'invalid-request', requestId: 'abc' })
    expect(error.fields).toEqual([{ field: 'password', detail: 'too short', code: 'common-password' }])
    expect(error.extra['title']).toBe('Invalid request')
  })

  it.each([
    ['HTML of a proxy', '<html>502</html>', 'text/html'],
    ['JSON that is no problem', '{"type": "urn:slipway:problem:busy"}', 'application/json'],
    ['a cut-off document', '{"type": "urn:slip', 'application/problem+json'],
    ['a document that is no object', '7', 'application/problem+json'],
    ['nothing', '', 'application/problem+json'],
  ])('falls back to the status for %s', (_, body, type) => {
    expect(answer(502, body, { 'Content-Type': type })).toMatchObject({ status: 502, code: 'http-502', fields: [] })
  })

  it('takes the request id from the header when the body has none', () => {
    expect(answer(504, '', { 'X-Request-Id': 'from-header' }).requestId).toBe('from-header')
  })

  it('accepts parameters of the media type', () => {
    const body = '{"type": "urn:slipway:problem:busy"}'
    expect(answer(503, body, { 'Content-Type': 'application/problem+json; charset=utf-8' }).code).toBe('busy')
  })
})

describe('retryAfterOf', () => {
  const now = Date.parse('2026-11-21T12:00:00Z')
  it.each([
    ['7', 7],
    [' 0 ', 0],
    ['Sat, 21 Nov 2026 12:00:30 GMT', 30],
    ['Sat, 21 Nov 2026 11:00:00 GMT', 0],
    ['999999999', 3600],
    ['soon', undefined],
  ])('%s is %s seconds', (value, seconds) => expect(retryAfterOf(value, now)).toBe(seconds))

  it('is unknown without a header', () => expect(retryAfterOf(null)).toBeUndefined())
})

describe('failureOf', () => {
  it('tells a deadline, a lost network and a server out of reach apart', () => {
    expect(failureOf(new DOMException('', 'TimeoutError'))).toMatchObject({ status: 0, code: 'timeout' })
    expect(failureOf(new TypeError('Failed to fetch'))).toMatchObject({ status: 0, temporary: true })
  })

  it('leaves aborts and errors of our own as they are', () => {
    const abort = new DOMException('', 'AbortError')
    const own = new ApiError(404, { code: 'post-not-found' })
    expect(failureOf(abort)).toBe(abort)
    expect(failureOf(own)).toBe(own)
  })
})
