/** Who an access token speaks of. Read for display only: whether it is genuine is for the services to check. */

export interface User {
  id: string
  username: string
}

export function userOf(token: string): User {
  const payload = token.split('.')[1] ?? ''
  const base64 = payload.replaceAll('-', '+').replaceAll('_', '/')
  const raw = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
  const claims = JSON.parse(new TextDecoder().decode(raw)) as Record<string, unknown>
  const { sub, preferred_username: username } = claims
  if (typeof sub !== 'string' || typeof username !== 'string') throw new Error('access token: sub or name is missing')
  return { id: sub, username }
}
