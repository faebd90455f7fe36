import { beforeEach, describe, expect, it, vi } from 'vitest'
import { Api, pathOf } from '../src/api/api'
import type { Session } from '../src/session/session'
import { AuthServer, accessToken, Browser, type Handler, json, problem } from './browser'

const POST = { id: '1', title: 'T', content: 'C', author: { id: 'id-ada', username: 'ada' }, created_at: '2026-11-21T12:00:00Z' }
const signal = new AbortController().signal
let answers: Response[]
let browser: Browser
let session: Session
let api: Api

beforeEach(() => {
  answers = []
  const auth = new AuthServer()
  const handle: Handler = (request) => {
    if (request.path.endsWith('/login') || request.path.endsWith('/refresh')) return auth.handle(request)
    return answers.shift() ?? problem(500, 'no-answer-left')
  }
  browser = new Browser(handle)
  session = browser.tab()
  api = new Api(session, browser.fetch)
})

const bearer = (index: number) => browser.requests[index]?.headers.get('Authorization')

describe('reading', () => {
  it('sends no token where none is needed', async () => {
    answers = [json(200, { items: [POST], next_cursor: 'c d' }), json(200, { items: [], next_cursor: null })]
    const page = await api.posts('all', null, signal)
    expect(page.items).toEqual([POST])
    await api.posts('all', page.next_cursor, signal)
    expect(browser.paths()).toEqual(['/api/v1/posts?limit=10', '/api/v1/posts?limit=10&cursor=c+d'])
    expect(bearer(0)).toBeNull()
  })

  it('waits as long as a busy server asks for, and not much longer', async () => {
    vi.useFakeTimers()
    answers = [problem(503, 'busy', { 'Retry-After': '2' }), json(200, POST)]
    const post = api.post('1', signal)
    await vi.advanceTimersByTimeAsync(1900)
    expect(browser.requests).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1200)
    expect(await post).toEqual(POST)
    vi.useRealTimers()
  })

  it.each([
    ['three refusals', () => Array.from({ length: 3 }, () => problem(503, 'busy', { 'Retry-After': '0' })), 3],
    ['one refusal that asks for patience', () => [problem(503, 'busy', { 'Retry-After': '60' })], 1],
    ['one that does not say for how long', () => [problem(503, 'busy')], 1],
    ['another error', () => [problem(404, 'post-not-found')], 1],
  ])('gives up after %s', async (_, prepare, requests) => {
    vi.spyOn(Math, 'random').mockReturnValue(0)
    answers = prepare()
    await expect(api.post('1', signal)).rejects.toHaveProperty('name', 'ApiError')
    expect(browser.requests).toHaveLength(requests)
  })

  it('stops waiting when nobody wants it any more', async () => {
    const controller = new AbortController()
    answers = [problem(503, 'busy', { 'Retry-After': '5' })]
    const post = api.post('1', controller.signal)
    await vi.waitFor(() => expect(answers).toHaveLength(0))
    controller.abort()
    await expect(post).rejects.toHaveProperty('name', 'AbortError')
  })
})

describe('with an account', () => {
  beforeEach(async () => {
    await session.signIn('ada', 'right')
    browser.requests.length = 0
  })

  it('sends the token and the key', async () => {
    answers = [json(201, POST)]
    expect(await api.createPost({ title: 'T', content: 'C' }, 'key-1')).toEqual(POST)
    expect(bearer(0)).toBe(`Bearer ${accessToken(1)}`)
    expect(browser.requests[0]?.headers.get('Idempotency-Key')).toBe('key-1')
    expect(browser.requests[0]?.headers.get('Content-Type')).toBe('application/json')
  })

  it('renews a refused token and tries once more, with the same key', async () => {
    answers = [problem(401, 'invalid-token'), json(201, POST)]
    await api.createPost({ title: 'T', content: 'C' }, 'key-1')
    expect(browser.paths()).toEqual(['/api/v1/posts', '/api/v1/auth/refresh', '/api/v1/posts'])
    expect(bearer(2)).toBe(`Bearer ${accessToken(2)}`)
    expect(browser.requests[2]?.headers.get('Idempotency-Key')).toBe('key-1')
  })

  it('tries only once more', async () => {
    answers = [problem(401, 'invalid-token'), problem(401, 'invalid-token')]
    await expect(api.deletePost('1')).rejects.toMatchObject({ code: 'invalid-token' })
    expect(browser.requests).toHaveLength(3)
  })

  it('does not take a wrong password for an ended session', async () => {
    answers = [problem(401, 'invalid-credentials')]
    await expect(api.changePassword('wrong', 'long enough')).rejects.toMatchObject({ code: 'invalid-credentials' })
    expect(browser.requests).toHaveLength(1)
    expect(browser.requests[0]?.json).toEqual({ current_password: 'wrong', new_password: 'long enough' })
  })

  it('does not send anything twice that changes something', async () => {
    answers = [problem(503, 'busy', { 'Retry-After': '0' })]
    await expect(api.createPost({ title: 'T', content: 'C' }, 'k')).rejects.toMatchObject({ code: 'busy', temporary: true })
    expect(browser.requests).toHaveLength(1)
  })

  it('encodes what comes from outside into paths', async () => {
    answers = [new Response(null, { status: 204 })]
    await api.deleteImage('../posts/1?x')
    expect(browser.paths()).toEqual(['/api/v1/images/..%2Fposts%2F1%3Fx'])
  })
})

describe('pathOf', () => {
  it.each(['/api/v1/images/a.jpg/480', 'https://slipway.test/api/v1/images/a.jpg/480'])('takes %s', (url) =>
    expect(pathOf(url)).toBe('/images/a.jpg/480'),
  )
  it.each(['/api/v1/posts', '/api/v1/images/../auth/login', '/api/v1/images/%2e%2e/posts', 'javascript:alert(1)', 'data:,x'])(
    'refuses %s',
    (url) => expect(() => pathOf(url)).toThrow('wanted one below'),
  )
})
