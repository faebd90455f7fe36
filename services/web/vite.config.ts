import react from '@vitejs/plugin-react'
import { defineConfig, loadEnv } from 'vite'

const { API_URL = 'http://127.0.0.1:3002' } = loadEnv('development', '.', 'API_')

export default defineConfig({
  plugins: [react()],
  build: {
    // The content security policy knows only files of this origin: no data: URLs and no code that was not a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // Those of the packages that the page contains; they ask to be passed on.
    license: { fileName: 'licenses.txt' },
  },
  server: {
    // `npm run dev` beside a gateway; where it listens says the variable API_URL.
    proxy: { '/api': API_URL },
  },
})
