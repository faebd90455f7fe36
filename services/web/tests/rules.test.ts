import { describe, expect, it } from 'vitest'
import { passwordMistake, usernameMistake } from '../src/rules'

describe('usernameMistake', () => {
  it.each(['ada', ' Ada ', 'a.b-c_d', 'x'.repeat(32)])('takes %j', (name) => expect(usernameMistake(name)).toBeUndefined())
  it.each(['', '  ', 'ab', 'x'.repeat(33), '-ada', 'ada.', 'a b c', 'adä'])('refuses %j', (name) =>
    expect(usernameMistake(name)).toMatch(/\.$/),
  )
})

describe('passwordMistake', () => {
  it.each(['12345678', '😀'.repeat(8), 'x'.repeat(256)])('takes %j', (text) => expect(passwordMistake(text)).toBeUndefined())
  it.each(['', '1234567', '😀'.repeat(4), 'x'.repeat(257)])('refuses %j', (text) => expect(passwordMistake(text)).toMatch(/\.$/))
})
