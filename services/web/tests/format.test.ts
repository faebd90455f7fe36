import { describe, expect, it } from 'vitest'
import { ago, bytes } from '../src/format'

describe('bytes', () => {
  it.each([
    [0, '0 bytes'],
    [1023, '1023 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [12 * 1024 * 1024, '12 MiB'],
    [157286400, '150 MiB'],
    [5e15, '4547 TiB'],
  ])('%d', (size, text) => expect(bytes(size)).toBe(text))
})

describe('ago', () => {
  const now = Date.parse('2026-11-21T12:00:00Z')
  it.each([
    ['2026-11-21T11:59:58Z', 'just now'],
    // A clock that runs ahead is no reason to show the future.
    ['2026-11-21T12:00:05Z', 'just now'],
    ['2026-11-21T11:58:30Z', '1 minute ago'],
    ['2026-11-21T09:00:00Z', '3 hours ago'],
    ['2026-11-20T11:00:00Z', 'yesterday'],
    ['2026-10-01T12:00:00Z', '1 Oct 2026'],
  ])('%s', (time, text) => expect(ago(time, now)).toBe(text))
})
