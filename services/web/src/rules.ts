/** Rules of the services that are worth telling before anything is sent. The services decide all the same. */

const USERNAME = /^[a-z0-9][a-z0-9._-]{1,30}[a-z0-9]$/
export const TITLE_MAX = 200
export const CONTENT_MAX = 10_000
export const IMAGE_TYPES = 'image/jpeg,image/png,image/gif,image/webp,image/avif'

export function usernameMistake(username: string): string | undefined {
  const name = username.trim().toLowerCase()
  if (name === '') return 'Please choose a username.'
  if (name.length < 3 || name.length > 32) return 'A username has 3 to 32 characters.'
  return USERNAME.test(name)
    ? undefined
    : 'A username has letters a–z, digits, dots, dashes and underscores, and begins and ends with a letter or digit.'
}

export function passwordMistake(password: string): string | undefined {
  if (password === '') return 'Please choose a password.'
  // Characters, as the server counts them: not halves of surrogate pairs.
  const length = Array.from(password).length
  if (length < 8) return 'A password has at least 8 characters.'
  return length > 256 ? 'A password has at most 256 characters.' : undefined
}
