import { describe, expect, it } from 'vitest'
import { ApiError } from '../src/api/problem'
import { duration, fieldSentence, sentenceOf } from '../src/api/sentences'

const error = (status: number, code: string, more: object = {}) => new ApiError(status, { code, ...more })

describe('sentenceOf', () => {
  it.each([
    [error(409, 'username-taken'), 'This username is taken. Please choose another one.'],
    [error(429, 'rate-limited', { retryAfter: 42 }), 'That was too often. Try again in 42 seconds.'],
    [error(503, 'busy', { retryAfter: 1 }), 'The server is busy at the moment. Try again in a second.'],
    [error(502, 'http-502'), 'A part of the server does not answer at the moment.'],
    [error(500, 'http-500'), 'Something went wrong on the server. It was not your fault.'],
    [error(422, 'something-new', { detail: 'the field is odd' }), 'The field is odd.'],
    [error(422, 'invalid-request', { detail: '1 field', fields: [{ field: 'x', detail: 'too long' }] }), 'Too long.'],
    [error(418, 'http-418'), 'The server did not accept that.'],
    [new Error('a bug'), 'Something went wrong on this page. Please load it again.'],
  ])('%s', (found, sentence) => expect(sentenceOf(found)).toBe(sentence))

  it('says how much room there is', () => {
    const found = error(403, 'quota-exceeded', { extra: { used: { images: 2, bytes: 5 << 20 }, limit: { images: 9, bytes: 6 << 20 } } })
    expect(sentenceOf(found)).toContain('5 MiB of 6 MiB')
    const full = error(403, 'quota-exceeded', { extra: { used: { images: 9, bytes: 1 }, limit: { images: 9, bytes: 6 } } })
    expect(sentenceOf(full)).toBe('An account may keep 9 images. Delete some first.')
    expect(sentenceOf(error(403, 'quota-exceeded'))).toContain('no room')
  })

  it('leaves the wait out where it is shown otherwise', () => {
    expect(sentenceOf(error(503, 'busy', { retryAfter: 9 }), { wait: false })).toBe('The server is busy at the moment.')
  })
})

describe('fieldSentence', () => {
  const found = error(422, 'invalid-request', {
    fields: [
      { field: 'username', detail: 'string should match pattern' },
      { field: 'password', detail: 'x', code: 'common-password' },
    ],
  })
  it('is the one of the field', () => {
    expect(fieldSentence(found, 'username')).toBe('String should match pattern.')
    expect(fieldSentence(found, 'password')).toContain('first that others would try')
    expect(fieldSentence(found, 'title')).toBeUndefined()
    expect(fieldSentence(new Error('a bug'), 'title')).toBeUndefined()
  })
})

describe('duration', () => {
  it.each([
    [0, 'a second'],
    [1, 'a second'],
    [89, '89 seconds'],
    [90, '2 minutes'],
    [300, '5 minutes'],
    [7200, '2 hours'],
  ])('%d', (seconds, text) => expect(duration(seconds)).toBe(text))
})
