import { beforeEach, describe, expect, it } from 'vitest'
import { AuthServer, accessToken, Browser } from './browser'

const HINT = 'slipway.signed-in'
let server: AuthServer
let browser: Browser

beforeEach(() => {
  server = new AuthServer()
  browser = new Browser(server.handle)
})

describe('signing in', () => {
  it('asks for the refresh token as a cookie and keeps the access token to itself', async () => {
    const session = browser.tab()
    expect(session.state).toEqual({ status: 'signed-out', expired: false })
    await session.signIn('ada', 'right')
    expect(session.state).toEqual({ status: 'signed-in', user: { id: 'id-ada', username: 'ada' } })
    expect(browser.requests[0]?.json).toEqual({ username: 'ada', password: 'right', refresh_token_in: 'cookie' })
    expect(await session.token()).toBe(accessToken(1))
    expect([...browser.stored]).toEqual([[HINT, '1']])
  })

  it('stays signed out after a wrong password', async () => {
    const session = browser.tab()
    await expect(session.signIn('ada', 'wrong')).rejects.toMatchObject({ code: 'invalid-credentials' })
    expect(session.state.status).toBe('signed-out')
    expect(browser.stored.size).toBe(0)
  })
})

describe('after a page load', () => {
  it('asks for nothing when nobody was signed in', async () => {
    await browser.tab().resume()
    expect(browser.requests).toEqual([])
  })

  it('goes on where the page was left', async () => {
    await browser.tab().signIn('ada', 'right')
    const session = browser.tab()
    expect(session.state).toEqual({ status: 'resuming' })
    await session.resume()
    expect(session.state.status).toBe('signed-in')
  })

  it('says that the session has ended', async () => {
    browser.stored.set(HINT, '1')
    const session = browser.tab()
    await session.resume()
    expect(session.state).toEqual({ status: 'signed-out', expired: true })
    expect(browser.stored.size).toBe(0)
  })

  it('does not end a session because the server is away', async () => {
    await browser.tab().signIn('ada', 'right')
    server.down = true
    const session = browser.tab()
    await session.resume()
    expect(session.state).toMatchObject({ status: 'resuming', error: { code: 'upstream-unavailable', retryAfter: 2 } })
    server.down = false
    await session.resume()
    expect(session.state.status).toBe('signed-in')
  })
})

describe('the access token', () => {
  it('is used until shortly before its end, then renewed', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    browser.now += 869_000
    expect(await session.token()).toBe(accessToken(1))
    browser.now += 2_000
    expect(await session.token()).toBe(accessToken(2))
  })

  it('is renewed once for all who want it', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    browser.now += 900_000
    const tokens = await Promise.all([session.token(), session.token(), session.token()])
    expect(new Set(tokens)).toEqual(new Set([accessToken(2)]))
    expect(browser.paths().filter((path) => path.endsWith('/refresh'))).toHaveLength(1)
  })

  it('is renewed once when several were refused the same one', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    const refused = await session.token()
    expect(await Promise.all([session.replace(refused), session.replace(refused)])).toEqual([accessToken(2), accessToken(2)])
    // Who comes late with the old one gets the new one, and no third.
    expect(await session.replace(refused)).toBe(accessToken(2))
  })

  it('keeps the user object, so that views stay', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    const before = session.state
    browser.now += 900_000
    await session.token()
    expect(session.state).toBe(before)
  })

  it('is not to be had when signed out', async () => {
    await expect(browser.tab().token()).rejects.toMatchObject({ status: 401, code: 'session-expired' })
    expect(browser.requests).toEqual([])
  })

  it('ends the session when it cannot be renewed', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    server.valid = null
    browser.now += 900_000
    await expect(session.token()).rejects.toMatchObject({ code: 'session-expired' })
    expect(session.state).toEqual({ status: 'signed-out', expired: true })
  })

  it('survives a moment without server', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    browser.now += 900_000
    server.down = true
    await expect(session.token()).rejects.toMatchObject({ status: 503 })
    expect(session.state.status).toBe('signed-in')
    server.down = false
    expect(await session.token()).toBe(accessToken(2))
  })
})

describe('several tabs', () => {
  it('renew one after the other: no refresh token is used twice', async () => {
    const first = browser.tab()
    await first.signIn('ada', 'right')
    const others = [browser.tab(), browser.tab(), browser.tab()]
    browser.now += 900_000
    await Promise.all([first.token(), ...others.map((tab) => tab.resume())])
    expect([first, ...others].map((tab) => tab.state.status)).toEqual(Array(4).fill('signed-in'))
    expect(server.valid).toBe(5)
  })

  it('would end the session without the lock: the server above is as strict as it should be', async () => {
    await browser.tab().signIn('ada', 'right')
    const refresh = () => browser.fetch('/api/v1/auth/refresh', { method: 'POST', body: '{}' })
    const statuses = (await Promise.all([refresh(), refresh()])).map(({ status }) => status)
    expect(statuses.toSorted()).toEqual([200, 401])
  })

  it('sign out together', async () => {
    const [one, other] = [browser.tab(), browser.tab()]
    await one.signIn('ada', 'right')
    await expect.poll(() => other.state.status).toBe('signed-in')
    await one.signOut()
    expect(other.state).toEqual({ status: 'signed-out', expired: false })
    await expect(other.token()).rejects.toMatchObject({ code: 'session-expired' })
  })
})

describe('signing out', () => {
  it('fails loudly when the server cannot be told', async () => {
    const session = browser.tab()
    await session.signIn('ada', 'right')
    server.down = true
    await expect(session.signOut()).rejects.toMatchObject({ status: 503 })
    expect(session.state.status).toBe('signed-in')
    server.down = false
    await session.signOut()
    expect(session.state).toEqual({ status: 'signed-out', expired: false })
    expect(browser.stored.size).toBe(0)
  })
})
