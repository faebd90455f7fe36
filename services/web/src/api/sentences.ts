/** Errors as sentences: what happened, and what helps. */

import { bytes } from '../format'
import { ApiError } from './problem'
import type { Amount } from './types'

const SENTENCES: Record<string, string> = {
  offline: 'You are offline. Connect to a network and try again.',
  unreachable: 'The server cannot be reached. Check your connection and try again.',
  timeout: 'The server took too long to answer. Please try again.',
  'session-expired': 'Your session has ended. Please sign in again.',
  'invalid-credentials': 'The username or the password is wrong.',
  'username-taken': 'This username is taken. Please choose another one.',
  'common-password': 'This password is among the first that others would try. Please choose another one.',
  busy: 'The server is busy at the moment.',
  'not-your-post': 'Only its author can delete a post.',
  'post-not-found': 'This post does not exist any more.',
  'image-not-found': 'This image does not exist any more.',
  'image-too-large': 'This file is too large.',
  'body-too-large': 'This file is too large.',
  'unsupported-image': 'This is no image that can be taken: it has to be JPEG, PNG, GIF, WebP or AVIF.',
  'damaged-image': 'This image is damaged and cannot be read.',
  'file-empty': 'This file is empty.',
  'too-many-pixels': 'This image has too many pixels.',
  'upload-too-slow': 'The upload took too long. Please try again on a faster connection.',
  'no-space': 'No uploads can be taken at the moment.',
  'storage-unavailable': 'Images cannot be stored or read at the moment.',
  'http-413': 'This file is too large.',
}

/** By status, for codes that have no sentence of their own. */
const BY_STATUS: Record<number, string> = {
  401: 'Please sign in again.',
  403: 'You may not do that.',
  404: 'This does not exist any more.',
  409: 'Somebody else was faster. Please load the page again.',
  429: 'That was too often.',
  500: 'Something went wrong on the server. It was not your fault.',
  502: 'A part of the server does not answer at the moment.',
  503: 'A part of the server does not answer at the moment.',
  504: 'A part of the server takes too long to answer.',
}

/** One sentence or two for a reader; `wait` false leaves out when to try again, for places that show it otherwise. */
export function sentenceOf(error: unknown, { wait = true }: { wait?: boolean } = {}): string {
  if (!(error instanceof ApiError)) return 'Something went wrong on this page. Please load it again.'
  const after = wait && error.retryAfter !== undefined ? ` Try again in ${duration(error.retryAfter)}.` : ''
  return main(error) + after
}

function main(error: ApiError): string {
  if (error.code === 'quota-exceeded') return quota(error)
  const own = SENTENCES[error.code] ?? BY_STATUS[error.status]
  if (own !== undefined) return own
  const field = error.fields[0]
  if (field?.detail) return asSentence(field.detail)
  return error.detail ? asSentence(error.detail) : 'The server did not accept that.'
}

function quota({ extra }: ApiError): string {
  const { used, limit } = extra
  if (!isAmount(used) || !isAmount(limit)) return 'There is no room left for this image.'
  if (used.images >= limit.images) return `An account may keep ${limit.images} images. Delete some first.`
  return `There is no room left for this image: ${bytes(used.bytes)} of ${bytes(limit.bytes)} are in use. Delete some images first.`
}

function isAmount(value: unknown): value is Amount {
  if (typeof value !== 'object' || value === null) return false
  const { images, bytes: size } = value as Record<string, unknown>
  return typeof images === 'number' && typeof size === 'number'
}

/** The sentence of the one field, if the server complained about it. */
export function fieldSentence(error: unknown, field: string): string | undefined {
  if (!(error instanceof ApiError)) return undefined
  const found = error.fields.find((entry) => entry.field === field)
  if (!found) return undefined
  return SENTENCES[found.code ?? ''] ?? asSentence(found.detail)
}

export function duration(seconds: number): string {
  if (seconds <= 1) return 'a second'
  if (seconds < 90) return `${seconds} seconds`
  const minutes = Math.ceil(seconds / 60)
  return minutes < 90 ? `${minutes} minutes` : `${Math.ceil(minutes / 60)} hours`
}

function asSentence(text: string): string {
  const trimmed = text.trim()
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1)
  return /[.!?]$/.test(begun) ? begun : `${begun}.`
}
